"""The seam to whoever names the bottleneck: what has this shape is shown, if it is given."""

from collections.abc import Sequence
from typing import Literal, Protocol


class Evidence(Protocol):
    """One figure that the verdict rests on."""

    @property
    def says(self) -> str:
        """What it says, in a line, with its value."""

    @property
    def query(self) -> str:
        """The PromQL that it was read with."""


class Verdict(Protocol):
    """What limited a run."""

    @property
    def headline(self) -> str:
        """The answer, in a line."""

    @property
    def level(self) -> Literal["good", "warning", "bad"]:
        """How it is shown: nothing saturated, the generator was the limit, a stage was."""

    @property
    def explanation(self) -> str:
        """How it came to that: when, and how much of the client's latency it explains."""

    @property
    def evidence(self) -> Sequence[Evidence]:
        """The figures."""

    @property
    def advice(self) -> Sequence[str]:
        """What to try next."""
