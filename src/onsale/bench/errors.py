"""What goes wrong around a benchmark, as opposed to what it finds."""


class BenchError(RuntimeError):
    """The run says nothing about the service; one line says why."""
