"""Children die with their owner, become whom they should, and log where they should."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest

from onsale.embedded import free_port, spawn_child, stop_child
from onsale.embedded.processes import Account, last_words

WaitUntilEnded = Callable[[Iterable[psutil.Process]], None]

OWNER_OF_A_SLEEPER = """
import signal
from onsale.embedded import spawn_child
print(spawn_child(["sleep", "60"]).pid, flush=True)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a parent's death")
def test_a_child_ends_when_its_owner_is_killed(wait_until_ended: WaitUntilEnded) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER_OF_A_SLEEPER], stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        child = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
    wait_until_ended([child])


def test_a_child_appends_to_its_log(tmp_path: Path) -> None:
    log_path = tmp_path / "child.log"
    log_path.write_text("before\n")
    child = spawn_child(
        ["sh", "-c", "echo out; echo err >&2; pwd"], cwd=tmp_path, log_path=log_path
    )
    assert child.wait() == 0
    assert log_path.read_text().splitlines() == ["before", "out", "err", str(tmp_path)]
    assert log_path.stat().st_mode & 0o777 == 0o644, "an existing file keeps its mode"


def test_a_log_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "child.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        spawn_child(["true"], log_path=tmp_path / "child.log")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_child_of_root_gives_up_every_privilege(tmp_path: Path) -> None:
    nobody = Account.of_user("nobody")
    log_path = tmp_path / "child.log"
    child = spawn_child(
        ["grep", "-E", "^(Uid|Gid|Groups|CapEff):", "/proc/self/status"],
        cwd=tmp_path,
        log_path=log_path,
        account=nobody,
    )
    assert child.wait() == 0
    uid, gid, groups, capabilities = (
        line.split()[1:] for line in log_path.read_text().splitlines()
    )
    assert uid == [str(nobody.uid)] * 4
    assert gid == [str(nobody.gid)] * 4
    assert groups == []
    assert int(capabilities[0], 16) == 0


def test_a_program_that_is_missing_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        spawn_child(["no-such-program"])


def test_a_child_is_asked_to_end() -> None:
    child = spawn_child(["sleep", "60"])
    assert stop_child(child) == -signal.SIGTERM
    assert stop_child(child) == -signal.SIGTERM, "asking twice does no harm"


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    child = spawn_child(["sh", "-c", f"trap '' TERM; echo > {ready}; exec sleep 60"])
    ready.read_text()
    assert stop_child(child, timeout_seconds=0.1) == -signal.SIGKILL


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("old FATAL: no\n", "it said nothing"),
        ("old FATAL: no\nLOG: a\nFATAL: why\nLOG: shut down\n", "FATAL: why"),
        ("old FATAL: no\nhello\n>>> 'foo'\nBad directive\n\n", ">>> 'foo' Bad directive"),
    ],
)
def test_the_last_words_of_a_log_are_the_reason(tmp_path: Path, log: str, words: str) -> None:
    (tmp_path / "log").write_text(log)
    assert last_words(tmp_path / "log", len("old FATAL: no\n")) == words
