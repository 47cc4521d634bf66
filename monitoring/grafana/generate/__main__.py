"""Writes every dashboard below `monitoring/grafana/dashboards/`."""

from pathlib import Path

from monitoring.grafana.generate.catalogue import DASHBOARDS
from monitoring.grafana.generate.grafana import dashboard_text

FOLDER = Path(__file__).parents[1] / "dashboards"


def main() -> None:
    """Writes one file per dashboard, named like its uid without the prefix."""
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.name}.json").write_text(dashboard_text(dashboard), encoding="utf-8")


if __name__ == "__main__":
    main()
