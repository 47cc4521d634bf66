"""A campaign from nothing: a stage in a temporary folder, the campaign on it, its report."""

import asyncio
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from onsale.chaos.campaign import Campaign
from onsale.chaos.faults import FAULTS, Fault
from onsale.chaos.report import Report
from onsale.chaos.stage import Stage
from onsale.embedded import EmbeddedError
from onsale.embedded.folders import runtime_folder


def run(
    faults: Mapping[str, Callable[[], Fault]],
    *,
    seed: int,
    seconds: float,
    report_dir: Path,
    tell: Callable[[str], None],
) -> Report:
    """Run a campaign; where it finds something, or fails, `report_dir` gets its history and its
    logs.

    Raises `EmbeddedError` when something does not start.
    """
    if sys.platform != "linux":
        raise EmbeddedError("the fault campaign needs Linux")
    return asyncio.run(_run(faults, seed, seconds, report_dir, tell))


async def _run(
    faults: Mapping[str, Callable[[], Fault]],
    seed: int,
    seconds: float,
    report_dir: Path,
    tell: Callable[[str], None],
) -> Report:
    with (
        tempfile.TemporaryDirectory(prefix="onsale-chaos-") as folder,
        # Names of sockets are limited to about 107 bytes, and that of a folder is not.
        tempfile.TemporaryDirectory(prefix="chaos-", dir=runtime_folder()) as sockets,
    ):
        async with Stage(Path(folder), Path(sockets), secrets.token_hex(32), tell=tell) as stage:
            campaign = Campaign(stage, faults, seed, seconds, tell)
            try:
                report = await campaign.run()
            except Exception:
                _keep(stage, campaign, report_dir)
                raise
        if not report.well:
            _keep(stage, campaign, report_dir)
        return report


def _keep(stage: Stage, campaign: Campaign, report_dir: Path) -> None:
    report_dir.mkdir(parents=True, exist_ok=True)
    shutil.copytree(stage.logs, report_dir / "logs", dirs_exist_ok=True)
    campaign.history.write(report_dir / "history.jsonl")


def chosen(names: str) -> dict[str, Callable[[], Fault]]:
    """The faults of a comma-separated list. Raises `ValueError` for an unknown one."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in FAULTS]
    if unknown:
        raise ValueError(f"no fault {', '.join(unknown)}; there are: {', '.join(FAULTS)}")
    return {name: FAULTS[name] for name in wanted}
