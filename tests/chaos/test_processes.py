"""Processes of the nursery: they start, stand still, die, and die with it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from onsale.chaos.processes import Process, freeze_tree, thaw_tree
from onsale.embedded import spawn_child, stop_child
from onsale.embedded.folders import runtime_folder
from tests.support import wait_until

# Says which it is and that it still is, until it is told to stop.
PROGRAM = "tests.chaos.ticking"


@pytest.fixture(scope="module")
def nursery() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=runtime_folder()) as folder:
        path = Path(folder) / "nursery"
        child = spawn_child([sys.executable, "-m", "onsale.chaos.nursery", path, PROGRAM])
        try:
            yield path
        finally:
            stop_child(child)


def said_by(process: Process) -> list[str]:
    """Every word of its log."""
    return process.log_path.read_text().split() if process.log_path.exists() else []


def state_of(pid: int) -> str:
    """What the kernel calls it: `T` stands still."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def started(nursery: Path, log_path: Path) -> Process:
    """A process of the nursery, once that listens."""
    await wait_until(partial(_is_there, nursery), timeout_s=60)
    made = Process("one", nursery, ["serve"], {"NAME": "first"}, log_path)
    made.start()
    return made


async def _is_there(path: Path) -> bool:
    return os.access(path, os.F_OK)


@pytest.fixture
async def process(nursery: Path, tmp_path: Path) -> Process:
    return await started(nursery, tmp_path / "log")


async def until_said(process: Process, word: str, more_than: int = 0) -> None:
    async def said() -> bool:
        return said_by(process).count(word) > more_than

    await wait_until(said)


async def test_it_has_its_own_arguments_environment_and_log(process: Process) -> None:
    await until_said(process, "first")
    assert said_by(process)[:2] == ["serve", "first"]
    process.start({"NAME": "second"})
    await until_said(process, "second")
    process.stop()
    assert said_by(process)[-1] == "stopped"


async def test_killed_it_is_gone_at_once_and_can_be_started_again(process: Process) -> None:
    await until_said(process, "first")
    process.kill()
    assert not process.runs
    assert "stopped" not in said_by(process)
    process.start()
    assert process.runs
    process.kill()


async def test_frozen_it_stands_still_until_it_is_thawed(process: Process) -> None:
    await until_said(process, "first")
    process.freeze()
    assert process.runs

    async def stands_still() -> bool:
        return state_of(process.pid) == "T"

    await wait_until(stands_still)
    said = said_by(process).count("first")
    process.thaw()
    await until_said(process, "first", more_than=said)
    process.kill()


async def test_it_dies_with_whoever_owns_it(tmp_path: Path) -> None:
    """An owner that is killed leaves nobody behind, frozen or not."""
    with tempfile.TemporaryDirectory(dir=runtime_folder()) as folder:
        path = Path(folder) / "nursery"
        child = spawn_child([sys.executable, "-m", "onsale.chaos.nursery", path, PROGRAM])
        process = await started(path, tmp_path / "log")
        await until_said(process, "first")
        process.freeze()
        child.kill()
        child.wait()

        async def has_gone() -> bool:
            return not process.runs

        await wait_until(has_gone)


async def test_what_must_be_there_before_python_is_started_in_the_ordinary_way(
    process: Process,
) -> None:
    """An empty library is none, and still has to be asked for before the start."""
    process.start({"NAME": "preloaded", "LD_PRELOAD": "", "PATH": os.environ["PATH"]})
    await until_said(process, "preloaded")
    process.kill()


def test_children_may_end_while_a_tree_is_signalled() -> None:
    """A session of Postgres ends when it likes. Seen red without what is suppressed: it ended a
    campaign in its tenth minute.
    """
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    freeze_tree(child.pid)
    thaw_tree(child.pid)
