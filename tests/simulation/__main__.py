"""Run seeds until one is bad, or tell the story of one.

uv run python -m tests.simulation [--runs N] [--from SEED] [--bug NAME] [--theme NAME]
uv run python -m tests.simulation --seed SEED [--bug NAME] [--theme NAME]
"""

import argparse
import sys
from collections.abc import Sequence
from time import process_time

from tests.simulation.model import Model
from tests.simulation.plan import Theme
from tests.simulation.planted import Bug


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 1 when a rule did not hold."""
    asked = _parser().parse_args(arguments)
    bugs = [Bug[name] for name in asked.bug]
    theme = Theme[asked.theme] if asked.theme else None
    if asked.seed is not None:
        return _tell(asked.seed, bugs, theme)
    return _run(range(asked.start, asked.start + asked.runs), bugs, theme)


def _tell(seed: int, bugs: Sequence[Bug], theme: Theme | None) -> int:
    outcome = Model(seed, bugs, theme, tell=print).run()
    print(f"seed {seed}: {outcome.violation or 'every rule holds'}")
    return int(outcome.violation is not None)


def _run(seeds: Sequence[int], bugs: Sequence[Bug], theme: Theme | None) -> int:
    started = process_time()
    for seed in seeds:
        outcome = Model(seed, bugs, theme).run()
        if outcome.violation is not None:
            print(f"seed {seed}: {outcome.violation}")
            print(f"again: {replay(seed, bugs, theme)}")
            return 1
    per_minute = 60 * len(seeds) / (process_time() - started)
    print(f"{len(seeds)} runs, every rule holds; {per_minute:,.0f} runs a minute of one core")
    return 0


def replay(seed: int, bugs: Sequence[Bug] = (), theme: Theme | None = None) -> str:
    """The command that tells the story of this run."""
    options = [f"--seed {seed}", *(f"--bug {bug.name}" for bug in bugs)]
    if theme is not None:
        options.append(f"--theme {theme.name}")
    return f"uv run python -m tests.simulation {' '.join(options)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, help="tell the story of this seed")
    parser.add_argument("--runs", type=int, default=3_000, help="how many seeds to run")
    parser.add_argument("--from", dest="start", type=int, default=0, help="the first of them")
    parser.add_argument(
        "--bug",
        action="append",
        default=[],
        choices=[bug.name for bug in Bug],
        help="plant this bug; may be given more than once",
    )
    parser.add_argument(
        "--theme", choices=[theme.name for theme in Theme], help="what the runs are mostly about"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
