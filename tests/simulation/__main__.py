"""Run seeds until one is bad, or tell the story of one.

uv run python -m tests.simulation [--runs N] [--from SEED] [--bug NAME]
uv run python -m tests.simulation --seed SEED [--bug NAME]
"""

import argparse
import sys
from time import process_time

from tests.simulation.model import Model
from tests.simulation.plan import Theme
from tests.simulation.planted import Bug


def main() -> int:
    """The exit status: 1 when a rule did not hold."""
    asked = _arguments()
    bugs = [Bug[name] for name in asked.bug]
    theme = Theme[asked.theme] if asked.theme else None
    if asked.seed is not None:
        outcome = Model(asked.seed, bugs, theme, tell=print).run()
        print(f"seed {outcome.seed}: {outcome.violation or 'every rule holds'}")
        return int(outcome.violation is not None)
    started = process_time()
    for seed in range(asked.start, asked.start + asked.runs):
        outcome = Model(seed, bugs, theme).run()
        if outcome.violation is not None:
            print(f"seed {seed}: {outcome.violation}")
            again = " ".join(f"--bug {name}" for name in asked.bug)
            print(f"again: uv run python -m tests.simulation --seed {seed} {again}".rstrip())
            return 1
    spent_seconds = process_time() - started
    per_minute = 60 * asked.runs / spent_seconds
    print(f"{asked.runs} runs, every rule holds; {per_minute:,.0f} runs a minute of one core")
    return 0


def _arguments() -> argparse.Namespace:
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
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
