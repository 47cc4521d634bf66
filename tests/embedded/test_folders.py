"""The runtime folder is ours alone, whatever others have put in its place."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from onsale.embedded import EmbeddedError
from onsale.embedded.folders import runtime_folder
from onsale.embedded.processes import Account


@pytest.fixture
def temporary_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder like the system's: everyone may enter and write, and it is sticky."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o1777)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def test_it_can_be_entered_whatever_the_umask(temporary_folder: Path) -> None:
    umask_before = os.umask(0o077)
    try:
        folder = runtime_folder()
    finally:
        os.umask(umask_before)
    assert folder.parent == temporary_folder
    assert folder.stat().st_mode & 0o777 == 0o755
    assert runtime_folder() == folder


def test_a_link_in_its_place_is_refused(temporary_folder: Path) -> None:
    (temporary_folder / "elsewhere").mkdir()
    (temporary_folder / f"onsale-{os.geteuid()}").symlink_to(temporary_folder / "elsewhere")
    with pytest.raises(EmbeddedError, match="belongs to somebody else"):
        runtime_folder()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of another user")
def test_a_folder_of_another_user_in_its_place_is_refused(temporary_folder: Path) -> None:
    squatted = temporary_folder / "onsale-0"
    squatted.mkdir()
    os.chown(squatted, Account.of_user("nobody").uid, -1)
    with pytest.raises(EmbeddedError, match="belongs to somebody else"):
        runtime_folder()


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_temporary_folder_that_others_may_rearrange_is_passed_over(
    temporary_folder: Path, mode: int
) -> None:
    temporary_folder.chmod(mode)
    assert runtime_folder().parent == Path("/tmp")
