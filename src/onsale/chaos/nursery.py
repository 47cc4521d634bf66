"""Starts processes of the service in milliseconds: it has imported everything, and forks.

A campaign starts processes some hundred times, and each would spend seconds on imports that the
crowd's machine does not have. `python -m onsale.chaos.nursery SOCKET PROGRAM` takes a JSON object
a line, `{"argv": […], "env": {…}, "log": "/…"}`, answers with the process id, and the child runs
`python -m PROGRAM` with that and nothing else: its own environment, session and log. What has to
be there before Python is (`LD_PRELOAD`) is started in the ordinary way.
"""

import importlib
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from onsale.embedded.processes import die_with_owner

_PRELOADED = ("onsale.http.server", "onsale.workers.main", "onsale.cli", "uvloop")


def main(path: str, program: str) -> None:
    """Serve until killed, one request at a time."""
    for module in _PRELOADED:
        importlib.import_module(module)
    # Ended children are nobody's business here: their owner watches them by other means.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen()
        os.rename(f"{path}.new", path)  # who finds it there is heard
        while True:
            caller, _ = listener.accept()
            with caller, caller.makefile("rb") as lines:
                request = json.loads(lines.readline())
                nursery_pid = os.getpid()
                pid = os.fork()
                if pid == 0:
                    listener.close()
                    caller.close()
                    die_with_owner(nursery_pid, signal.SIGKILL)
                    _become(program, request)
                caller.sendall(b"%d\n" % pid)


def _become(program: str, request: Mapping[str, Any]) -> None:
    """Be the process that was asked for, and end with it."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, sys.stdout.fileno())
        os.dup2(log, sys.stderr.fileno())
        os.environ.clear()
        os.environ.update(request["env"])
        if "LD_PRELOAD" in os.environ:
            os.execv(sys.executable, [sys.executable, "-m", program, *request["argv"]])
        sys.argv = [program, *request["argv"]]
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
