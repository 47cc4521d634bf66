"""A campaign from crowd to verdict, as short as one can be and still say something."""

import pytest

from onsale.chaos.campaign import Campaign
from onsale.chaos.faults import FAULTS, SHORT
from onsale.chaos.run import chosen
from onsale.chaos.stage import Stage
from onsale.sales.invariants import Rule

# A process and a store that die, a gate that forgets, and a crash between commit and answer.
VERY_SHORT = "kill-api,kill-postgres,kill-redis,flushall,crash-placed"


@pytest.mark.campaign
async def test_every_invariant_holds(stage: Stage) -> None:
    """Seen red by each of the planted bugs (`test_planted`)."""
    for name in (*stage.apis, *stage.workers):
        await stage.start(name)
    told: list[str] = []
    report = await Campaign(stage, chosen(VERY_SHORT), 1, seconds=0, tell=told.append).run()
    found = [violation for verdict in report.verdicts for violation in verdict.violations]
    assert not found, told
    assert report.well
    assert [line.times for line in report.faults] == [1] * 5
    looked_at = {verdict.rule: verdict.looked_at for verdict in report.verdicts}
    assert all(looked_at[rule] for rule in Rule), looked_at


def test_the_short_form_is_made_of_faults_there_are() -> None:
    assert chosen(",".join(SHORT)).keys() <= FAULTS.keys()


def test_a_fault_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"no fault kill-nobody; there are: kill-api"):
        chosen("kill-redis,kill-nobody")
