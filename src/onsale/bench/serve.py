"""Serves an app that `onsale serve` does not, as that would: `serve module:factory port`.

Modules are found in the package and among the peers in `loadtest/bench/peers`.
"""

import sys

import uvicorn

from onsale.http.server import UVICORN_OPTIONS
from onsale.resources import project_folder


def main(factory: str, port: int) -> None:
    """Serve what the factory makes, by one process of this computer alone, until told to stop."""
    sys.path.append(str(project_folder("loadtest") / "bench" / "peers"))
    uvicorn.run(
        factory, factory=True, host="127.0.0.1", port=port, http="httptools", **UVICORN_OPTIONS
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
