"""Where the servers listen."""

import socket
from contextlib import ExitStack
from itertools import islice

from onsale.bench.stage import _free_ports


def test_ports_of_two_runs_at_once_and_of_others_are_not_taken() -> None:
    """Without the names both would have the same ports: nobody listens yet."""
    with ExitStack() as one, ExitStack() as other:
        ours = list(islice(_free_ports(one), 3))
        theirs = list(islice(_free_ports(other), 3))
        everything = [port for ports in (*ours, *theirs) for port in ports]
        assert len(set(everything)) == len(everything)
    with ExitStack() as again, socket.create_server(("127.0.0.1", ours[0][1])):
        assert ours[0] not in list(islice(_free_ports(again), 6))
