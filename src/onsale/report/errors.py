"""What stands in the way of a report."""


class ReportError(RuntimeError):
    """There is nothing to report, or nobody to ask; one line says which."""
