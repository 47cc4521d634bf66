"""Programs are found, and copied where the servers' user can run them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onsale.embedded import EmbeddedError, find_k6
from onsale.embedded.binaries import Bundle
from onsale.embedded.processes import Account


@pytest.mark.skipif(os.geteuid() != 0, reason="only root stages a copy")
def test_a_staged_copy_is_kept_and_renewed_when_a_cleaner_thinned_it(
    tmp_path: Path,
) -> None:
    hidden = tmp_path / "hidden"
    (hidden / "lib").mkdir(parents=True)
    shutil.copy("/bin/true", hidden / "program")
    (hidden / "lib/needed").write_text("")
    hidden.chmod(0o700)
    bundle = Bundle(hidden, (Path("program"), Path("lib/needed")), (Path("program"),))
    nobody = Account.of_user("nobody")
    staged = bundle.runnable_by(nobody)
    try:
        (staged / "added").write_text("")
        assert bundle.runnable_by(nobody) == staged
        assert (staged / "added").exists(), "not copied again"
        (staged / "lib/needed").unlink()
        assert bundle.runnable_by(nobody) == staged
        assert (staged / "lib/needed").exists()
        assert not (staged / "added").exists(), "copied whole"
    finally:
        shutil.rmtree(staged)


def test_k6_is_found_and_runs() -> None:
    answer = subprocess.run([find_k6(), "version"], capture_output=True, check=True, text=True)
    assert answer.stdout.startswith("k6")


def test_a_missing_k6_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(EmbeddedError, match="uv sync"):
        find_k6()
