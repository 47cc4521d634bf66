"""From what was read of a run to what limited it. Pure: no clock, no network.

A stage is saturated when its deciding signal was at its knee for a part of the run that counts. One
that waits for another saturated stage is a symptom, if that takes enough of the buyers' time to
explain it. Of those that are left, the cause is the one that explains most of what they waited for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onsale.bottleneck.stages import OBJECTIVE_SECONDS, Signal, Stage

# (seconds since the first buyer, value)
Points = Sequence[tuple[float, float]]

# Of the run's points: a knee that was reached for less is a moment, and no limit.
_LASTING_SHARE = 0.2
_LASTING_POINTS_MIN = 2
# Of what a stage takes of the buyers' time, what another has to take to be the reason for it. Not
# all of it, for both are measured by different means, and at times by few scrapes.
_EXPLAINING_SHARE_MIN = 1 / 2
# Who is let in is answered well before anybody minds: nothing behind the door was slow.
_FAST_SECONDS = OBJECTIVE_SECONDS / 10
# Of what the buyers waited: where the service took less and k6 was short of CPU, k6 took it.
_SERVED_SHARE_MIN = 1 / 3


@dataclass(frozen=True)
class Reading:
    """One signal over the run."""

    signal: Signal
    query: str
    points: Points

    @property
    def worst(self) -> float | None:
        """The highest value; `None` where there was none."""
        return max((value for _, value in self.points), default=None)

    @property
    def median_at_knee(self) -> float | None:
        """The value in the middle of those at the knee."""
        values = sorted(value for _, value in self.at_knee)
        return values[len(values) // 2] if values else None

    @property
    def at_knee(self) -> Points:
        """The points at which it was bad."""
        knee = self.signal.knee
        return [] if knee is None else [point for point in self.points if point[1] >= knee]


@dataclass(frozen=True)
class Observed:
    """What was read of one stage; `lost_seconds` a second, of all buyers, if it has its own, and
    else its `part` of what they wait for the process.
    """

    stage: Stage
    readings: tuple[Reading, ...]
    lost_seconds: float | None
    part: float = 1.0

    @property
    def decisive(self) -> Reading:
        """The reading that decides."""
        return next(each for each in self.readings if each.signal is self.stage.decisive)


@dataclass(frozen=True)
class Load:
    """The run as its buyers had it. `client_seconds` is what all of them waited, a second, and
    `server_seconds` what the service saw of that. For the event loop they waited `loop_seconds` of
    it at least, much of that within the stores' time.

    `generator_strain` says how k6 was short of CPU, if it was; `dropped` buyers never came. Who was
    served had an answer within `served_mean_seconds`; `None` when nobody was.
    """

    seconds: float
    points: int
    client_seconds: float
    client_mean_seconds: float
    server_seconds: float
    generator_strain: str | None = None
    dropped: int = 0
    loop_seconds: float = 0.0
    served_mean_seconds: float | None = None

    @property
    def generator_fell_behind(self) -> bool:
        """Whether k6 did not send what it was to, and had not the CPU for it."""
        return self.generator_strain is not None and self.dropped > 0

    @property
    def served_fast(self) -> bool:
        """Whether those who were let in had their answers soon."""
        return self.served_mean_seconds is not None and self.served_mean_seconds < _FAST_SECONDS

    @property
    def waited_for_the_generator(self) -> bool:
        """Whether that was so while the service answered fast."""
        served_share = self.server_seconds / self.client_seconds if self.client_seconds else 1.0
        return self.generator_fell_behind and served_share < _SERVED_SHARE_MIN


@dataclass(frozen=True)
class Finding:
    """One stage, judged: since when it was saturated, if ever, and by what that is explained."""

    observed: Observed
    since_seconds: float | None
    explained_by: tuple[str, ...]
    share: float

    @property
    def stage(self) -> Stage:
        return self.observed.stage

    @property
    def is_saturated(self) -> bool:
        return self.since_seconds is not None

    @property
    def is_cause(self) -> bool:
        """Saturated, and no stage that it waits for is."""
        return self.is_saturated and not self.explained_by


@dataclass(frozen=True)
class Fact:
    """One figure of the evidence, and the PromQL that it was read with."""

    says: str
    query: str


@dataclass(frozen=True)
class Verdict:
    """What limited a run; has the shape of `onsale.report.verdict.Verdict`.

    `limit` is the name of the stage; `None` when nothing was.
    """

    limit: str | None
    headline: str
    level: Literal["good", "warning", "bad"]
    explanation: str
    evidence: tuple[Fact, ...]
    advice: tuple[str, ...]
    findings: tuple[Finding, ...]


def judge(observed: Sequence[Observed], load: Load) -> Verdict:
    """The verdict on a run of which all stages were read, in the order of requests."""
    findings = _findings(observed, load)
    if not load.client_seconds and not load.dropped:
        return _nobody(findings)
    # A process that is full has a queue before it that it does not see.
    is_worker_full = any(each.is_cause and each.stage.name == "worker" for each in findings)
    if load.waited_for_the_generator and not is_worker_full:
        return _generator(findings, load)
    causes = [each for each in findings if each.is_cause and each.stage.name != "generator"]
    if causes:
        # The earlier in a request's way where two explain the same.
        return _limited(max(causes, key=lambda each: round(each.share, 1)), findings, load)
    if load.generator_fell_behind:
        return _generator(findings, load)
    return _nothing(findings, load)


def _findings(observed: Sequence[Observed], load: Load) -> tuple[Finding, ...]:
    since = {each.stage.name: saturated_since(each.decisive, load.points) for each in observed}
    shares = _shares(observed, load)
    saturated = {name: shares[name] for name, at in since.items() if at is not None}
    return tuple(
        Finding(
            each,
            since[each.stage.name],
            _explained_by(each.stage, saturated, load),
            shares[each.stage.name],
        )
        for each in observed
    )


def _explained_by(stage: Stage, saturated: Mapping[str, float], load: Load) -> tuple[str, ...]:
    """The stages that a saturated one waits for, of those that are saturated, with their shares."""
    if stage.name not in saturated or (stage.refuses and load.served_fast):
        return ()
    share_min = _EXPLAINING_SHARE_MIN * saturated[stage.name]
    return tuple(name for name in stage.waits_for if saturated.get(name, -1) >= share_min)


def saturated_since(reading: Reading, points: int) -> float | None:
    """When a signal first was at its knee, if it was for a part that counts of `points`."""
    at_knee = reading.at_knee
    lasting = max(_LASTING_POINTS_MIN, _LASTING_SHARE * points)
    return at_knee[0][0] if len(at_knee) >= lasting else None


def _shares(observed: Sequence[Observed], load: Load) -> Mapping[str, float]:
    """What each stage takes of the time that buyers waited, by its name."""
    process_seconds = _process_seconds(observed, load)
    lost_seconds = {
        each.stage.name: process_seconds * each.part
        if each.lost_seconds is None
        else each.lost_seconds
        for each in observed
    }
    return {
        name: min(seconds / load.client_seconds, 1) if load.client_seconds else 0.0
        for name, seconds in lost_seconds.items()
    }


def _process_seconds(observed: Sequence[Observed], load: Load) -> float:
    """What buyers waited for the process itself: on the way in, and for its event loop.

    That is what neither store nor provider accounts for, and what the loop's lag says if it is
    more: a batch is not back before the loop takes it.
    """
    stores = {"gate", "ledger", "payment"}
    accounted = sum(each.lost_seconds or 0 for each in observed if each.stage.name in stores)
    return max(load.client_seconds - accounted, load.loop_seconds)


def _limited(cause: Finding, findings: Sequence[Finding], load: Load) -> Verdict:
    symptoms = [each for each in findings if each.is_saturated and each is not cause]
    since = cause.since_seconds or 0
    explanation = (
        f"Saturated from second {since:.0f} of {load.seconds:.0f} on. It explains about"
        f" {cause.share:.0%} of the time that buyers waited"
        f" ({figure(load.client_mean_seconds, 's')} an answer, on average)."
    )
    if symptoms:
        explanation += (
            " Also at its knee: "
            + ", ".join(
                each.stage.title
                + (" (waits for it)" if cause.stage.name in each.explained_by else "")
                for each in symptoms
            )
            + "."
        )
    decisive = cause.observed.decisive
    value = figure(decisive.median_at_knee, decisive.signal.unit)
    return Verdict(
        cause.stage.name,
        f"{cause.stage.title} was the limit: {decisive.signal.name} {value}",
        "bad",
        explanation,
        _facts(cause),
        cause.stage.advice,
        tuple(findings),
    )


def _generator(findings: Sequence[Finding], load: Load) -> Verdict:
    (generator,) = (each for each in findings if each.stage.name == "generator")
    return Verdict(
        "generator",
        "The load generator was the limit, not the service",
        "warning",
        f"{load.dropped:,} buyers never came, for k6 could not keep up: {load.generator_strain}."
        " Latencies as k6 saw them contain its own waiting.",
        _facts(generator),
        generator.stage.advice,
        tuple(findings),
    )


def _nobody(findings: Sequence[Finding]) -> Verdict:
    """Whatever was at its knee then, nobody waited for it; or nobody has counted them."""
    return Verdict(
        None,
        "No buyer was seen: there is nothing to judge",
        "warning",
        "Neither k6 nor the API has told Prometheus of a request in this time.",
        (),
        ("Look whether the API is scraped (`up`), and whether it is the right time.",),
        tuple(findings),
    )


def _nothing(findings: Sequence[Finding], load: Load) -> Verdict:
    nearest = max(findings, key=_nearness)
    unwell = load.client_mean_seconds > OBJECTIVE_SECONDS or load.dropped > 0
    return Verdict(
        None,
        "Too slow for its load, and no stage says why"
        if unwell
        else "Nothing saturated: the load was below capacity",
        "warning" if unwell else "good",
        f"An answer took {figure(load.client_mean_seconds, 's')} on average;"
        f" {load.dropped:,} buyers found no virtual user free. Nearest to its knee:"
        f" {nearest.stage.title}, at {_nearness(nearest):.0%} of it.",
        _facts(nearest),
        () if unwell else ("To find the limit, send more: raise --buyers, or run `stress`.",),
        tuple(findings),
    )


def _nearness(finding: Finding) -> float:
    """The median of the deciding signal, as a share of its knee."""
    decisive = finding.observed.decisive
    values = sorted(value for _, value in decisive.points)
    return values[len(values) // 2] / (decisive.signal.knee or 1) if values else 0.0


def _facts(finding: Finding) -> tuple[Fact, ...]:
    return tuple(Fact(_says(finding.stage, each), each.query) for each in finding.observed.readings)


def _says(stage: Stage, reading: Reading) -> str:
    knee = reading.signal.knee
    bound = "" if knee is None else f", knee {figure(knee, reading.signal.unit)}"
    worst = figure(reading.worst, reading.signal.unit)
    return f"{stage.title}, {reading.signal.name}: {worst} at its worst{bound}"


_SHOWN: Mapping[str, str] = {
    "percentunit": "{:.0%}",
    "none": "{:,.3g}",
    "ops": "{:,.3g}/s",
    "count": "{:,.0f}",
}


def figure(value: float | None, unit: str) -> str:
    """A value as people read it."""
    if value is None:
        return "–"
    if unit == "s":
        return f"{value:.2f} s" if value >= 1 else f"{value * 1000:,.3g} ms"
    # Three digits of what is small, and never 1e+04.
    shown = _SHOWN["count" if unit == "none" and abs(value) >= 100 else unit]
    return shown.format(value)
