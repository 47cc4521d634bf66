"""Asks a Prometheus, over its HTTP API."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from types import TracebackType
from typing import Any, Self

import httpx

from onsale.report.errors import ReportError

_TIMEOUT_SECONDS = 30.0
# As shipped; for a time in which nothing was scraped.
_SCRAPE_SECONDS = 5


@dataclass(frozen=True)
class Series:
    """One line: its labels, and (Unix time, value) from old to new. No value is NaN or infinite."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


class Prometheus:
    """The server at `url`; a context. Every method raises `ReportError`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # Not through a proxy that the environment may name.
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1", timeout=_TIMEOUT_SECONDS, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def over(self, query: str, begin: float, end: float, step_seconds: float) -> list[Series]:
        """A query at every step from `begin` to `end`, in Unix time."""
        data = self._ask(
            "query_range", query=query, start=f"{begin:.3f}", end=f"{end:.3f}", step=step_seconds
        )
        return _series(data["result"])

    def samples(self, selector: str, at: float, back_seconds: float) -> list[Series]:
        """The samples themselves, with their own times, of the last `back_seconds` before `at`."""
        query = f"{selector}[{math.ceil(back_seconds)}s]"
        return _series(self._ask("query", query=query, time=f"{at:.3f}")["result"])

    def scrape_seconds(self, at: float, back_seconds: float) -> float:
        """How often the service's processes were scraped then, by the samples themselves."""
        distances = [
            after - before
            for series in self.samples('up{job=~"onsale-.+"}', at, back_seconds)
            for (before, _), (after, _) in pairwise(series.points)
        ]
        return max(round(median(distances)), 1) if distances else _SCRAPE_SECONDS

    def _ask(self, path: str, **parameters: Any) -> dict[str, Any]:
        try:
            answer = (
                self._http.post(path, data=parameters)
                if path.startswith("query")
                else (self._http.get(path, params=parameters))
            )
            found = answer.json()
        except httpx.HTTPError as error:
            raise ReportError(f"Prometheus at {self.url} does not answer: {error}") from None
        except ValueError:
            raise ReportError(f"{self.url} is not a Prometheus") from None
        if found.get("status") != "success":
            raise ReportError(f"Prometheus at {self.url}: {found.get('error', found)}")
        data: dict[str, Any] = found["data"]
        return data


def _series(result: list[dict[str, Any]]) -> list[Series]:
    found = (
        Series(
            line["metric"],
            tuple(
                (float(at), float(value))
                for at, value in line.get("values", [])
                if math.isfinite(float(value))
            ),
        )
        for line in result
    )
    return [series for series in found if series.points]
