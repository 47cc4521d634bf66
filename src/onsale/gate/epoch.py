"""The epoch: one name for "this loading of the gate, on this run of this server".

`<generation>.<run id>`: the ledger counts the generation up for every loading it authorises, and
the server chooses a new run id whenever it starts. An emptied gate has no epoch; one restored from
an old snapshot, or a promoted replica, has an old epoch or a server that it does not name.
"""


def make_epoch(generation: int, run_id: str) -> str:
    """The epoch of a loading."""
    return f"{generation}.{run_id}"


def generation_of(epoch: str | None) -> int:
    """How often the event's gate had been loaded; 0 when never."""
    return int(epoch.partition(".")[0]) if epoch else 0


def names_server(epoch: str | None, run_id: str) -> bool:
    """Whether the epoch was loaded on this run of the server."""
    return epoch is not None and epoch.partition(".")[2] == run_id
