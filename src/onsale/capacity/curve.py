"""How a crowd arrives: stretches of time in which the rate goes in a straight line."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

# The load test's spike (`loadtest/lib/crowd.js`): a ramp, a plateau, a tail, as shares of its time.
_SPIKE_SHARES = (0.1, 0.4, 0.5)
_SPIKE_AREA = 0.7


class Stretch(NamedTuple):
    """Some seconds in which the rate goes from one value to another, both in buyers a second."""

    seconds: float
    first_rate: float
    last_rate: float

    @property
    def buyers(self) -> float:
        """Who arrives in it."""
        return self.seconds * (self.first_rate + self.last_rate) / 2

    def arrived(self, seconds: float) -> float:
        """Who has arrived after so many of its seconds."""
        within = min(max(seconds, 0.0), self.seconds)
        return within * (self.first_rate + self._slope * within / 2)

    def seconds_of(self, buyer: float) -> float:
        """After how many of its seconds that buyer of its own is there."""
        if buyer <= 0:
            return 0.0
        # The root of a quadratic in the form that stands a slope of zero.
        square = max(0.0, self.first_rate**2 + 2 * self._slope * buyer)
        twice_the_mean_rate = self.first_rate + math.sqrt(square)
        return 2 * buyer / twice_the_mean_rate if twice_the_mean_rate else 0.0

    @property
    def _slope(self) -> float:
        return (self.last_rate - self.first_rate) / self.seconds


@dataclass(frozen=True)
class Curve:
    """The arrivals of a whole sale, stretch after stretch; time counts from its opening.

    Buyers come by chance. So do k6's, which are due evenly: it sends them when it has a core, and
    what was measured of batches is more than even arrivals would come to.
    """

    stretches: tuple[Stretch, ...]

    @classmethod
    def of_sale(
        cls, buyers: int, seconds: float, peak_factor: float = 1, peak_seconds: float = 10
    ) -> Self:
        """A wall at the opening, then the same number every second.

        At first `peak_factor` times as many as on average, for `peak_seconds` or until all have
        come. Raises `ValueError` unless all are positive and the factor is at least 1.
        """
        for name, value in (("buyers", buyers), ("seconds", seconds), ("peak", peak_seconds)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be more than zero")
        if not 1 <= peak_factor < math.inf:
            raise ValueError("the peak factor is at least 1: the peak is no lower than the mean")
        peak_rate = buyers / seconds * peak_factor
        if peak_seconds >= seconds / peak_factor:
            return cls((Stretch(seconds / peak_factor, peak_rate, peak_rate),))
        rest_seconds = seconds - peak_seconds
        rest_rate = max(0.0, buyers - peak_rate * peak_seconds) / rest_seconds
        wall = Stretch(peak_seconds, peak_rate, peak_rate)
        return cls((wall, Stretch(rest_seconds, rest_rate, rest_rate)))

    @classmethod
    def of_load_test(cls, buyers: int, seconds: float) -> Self:
        """As k6 sends them in `flash_sale`."""
        peak = buyers / seconds / _SPIKE_AREA
        ramp, plateau, tail = (share * seconds for share in _SPIKE_SHARES)
        stretches = (
            Stretch(ramp, 0, peak),
            Stretch(plateau, peak, peak),
            Stretch(tail, peak, 0),
        )
        return cls(stretches)

    @property
    def buyers(self) -> float:
        """Everybody."""
        return sum(stretch.buyers for stretch in self.stretches)

    @property
    def seconds(self) -> float:
        """Until the last has come."""
        return sum(stretch.seconds for stretch in self.stretches)

    @property
    def peak_rate(self) -> float:
        """The most buyers a second."""
        return max(max(stretch[1:]) for stretch in self.stretches)

    def arrived(self, seconds: float) -> float:
        """How many have come by then."""
        return sum(stretch.arrived(seconds - start) for start, stretch in self._starts())

    def seconds_of(self, buyer: float) -> float:
        """When that buyer comes; the last of them for numbers beyond."""
        before = 0.0
        for start, stretch in self._starts():
            if buyer <= before + stretch.buyers:
                return start + stretch.seconds_of(buyer - before)
            before += stretch.buyers
        return self.seconds

    def _starts(self) -> Iterator[tuple[float, Stretch]]:
        start = 0.0
        for stretch in self.stretches:
            yield start, stretch
            start += stretch.seconds
