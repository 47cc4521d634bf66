"""What goes wrong around a load test, as opposed to what a load test finds."""


class LoadTestError(RuntimeError):
    """The run says nothing about the service; one line says why and where the log is."""
