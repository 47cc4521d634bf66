"""Where the project's folders lie: beside `src` in a checkout, inside the package in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def project_folder(name: str) -> Path:
    """A folder of the project, such as `alembic`.

    Raises `FileNotFoundError` naming what is missing.
    """
    for folder in (_PACKAGE / f"_{name}", _PACKAGE.parents[1] / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the folder {name!r} is neither in the package nor beside src")
