"""What goes wrong around the model, as opposed to what it says."""


class CapacityError(RuntimeError):
    """There is nothing to compute from; one line says why."""
