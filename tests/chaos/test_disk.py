"""A disk that can be filled, and that nobody else sees."""

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from onsale.chaos.disk import SmallDisk
from onsale.embedded import EmbeddedError

pytestmark = pytest.mark.campaign

SIZE_BYTES = 16 * 1024 * 1024


def in_a_thread(work: Callable[[], None]) -> None:
    """The mount is its thread's; what goes wrong there goes wrong here."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def test_it_is_full_until_it_is_relieved(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "disk", SIZE_BYTES)

    def use() -> None:
        try:
            disk.mount()
        except EmbeddedError as error:
            pytest.skip(str(error))
        kept = disk.path / "kept"
        kept.write_bytes(b"before")
        disk.fill()
        with pytest.raises(OSError, match="No space left") as full:
            (disk.path / "more").write_bytes(bytes(4_096))
        assert full.value.errno == errno.ENOSPC
        assert kept.read_bytes() == b"before"
        disk.relieve()
        (disk.path / "more").write_bytes(bytes(4_096))

    in_a_thread(use)
    assert not (disk.path / "kept").exists(), "the mount was seen outside of its thread"


def test_to_relieve_one_that_was_never_mounted_is_harmless(tmp_path: Path) -> None:
    SmallDisk(tmp_path / "disk", SIZE_BYTES).relieve()
