"""A run as one HTML page, from any Prometheus, without Grafana and without a network.

`dashboards` reads the panels that Grafana shows, `prometheus` asks their queries, `run` finds out
when the run was and what happened in it, `plots` draws, and `page` puts it all together.
"""

from onsale.report.errors import ReportError
from onsale.report.page import write_report
from onsale.report.prometheus import Prometheus
from onsale.report.run import Run, await_scrape, find_run
from onsale.report.verdict import Evidence, Verdict

__all__ = [
    "Evidence",
    "Prometheus",
    "ReportError",
    "Run",
    "Verdict",
    "await_scrape",
    "find_run",
    "write_report",
]
