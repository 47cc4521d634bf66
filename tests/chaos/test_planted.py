"""The checker is checked: ten bugs that somebody might make, each found by the rule it breaks.

Every scene is played twice, by the sound service, which comes through, and by the one with the bug.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest

from onsale.chaos.history import History
from onsale.chaos.observation import Observation, observing
from onsale.chaos.rules import judge
from onsale.chaos.stage import Stage
from onsale.sales.invariants import Rule
from tests.chaos import planted, scenes

pytestmark = pytest.mark.campaign

# Longer than a hold of the campaign's sales, and than a reconciler's grace.
QUIET_SECONDS_MAX = 12.0


class Planted(NamedTuple):
    """A bug, where it shows, and the rule that says so."""

    bug: Callable[[], None]
    scene: Callable[[Observation], Awaitable[None]]
    breaks: Rule


PLANTED = [
    Planted(planted.no_fence, scenes.late_arrival, Rule.I2),
    Planted(planted.id_stays, scenes.given_back_again, Rule.I1),
    Planted(planted.own_clock, scenes.left_to_expire, Rule.I6),
    Planted(planted.batch_fails_whole, scenes.one_does_not_fit, Rule.I9),
    Planted(planted.beyond_the_last, scenes.paid_one_after_another, Rule.I10),
    Planted(planted.not_shielded, scenes.one_hangs_up, Rule.I8),
    Planted(planted.no_epoch, scenes.emptied, Rule.I1),
    Planted(planted.new_id, scenes.pressed_twice, Rule.I5),
    Planted(planted.no_stock_test, scenes.more_than_there_is, Rule.I2),
    Planted(planted.refund_forgets, scenes.refunded, Rule.I1),
]


async def broken(stage: Stage, each: Planted, *, bug: str) -> set[Rule]:
    """The rules that are broken when the scene is played by processes that were started anew."""
    for name in (*stage.apis, *stage.workers):
        await stage.start(name, {"ONSALE_PLANTED": bug})
    async with observing(stage, History()) as seen:
        await each.scene(seen)
        await seen.is_quiet_within(QUIET_SECONDS_MAX)
        return {verdict.rule for verdict in judge(await seen.evidence()) if not verdict.kept}


@pytest.mark.parametrize("each", PLANTED, ids=lambda each: each.scene.__name__)
async def test_the_sound_service_comes_through(stage: Stage, each: Planted) -> None:
    assert await broken(stage, each, bug="none") == set()


@pytest.mark.parametrize("each", PLANTED, ids=lambda each: each.bug.__name__)
async def test_a_bug_is_found(stage: Stage, each: Planted) -> None:
    assert each.breaks in await broken(stage, each, bug=each.bug.__name__)


def test_all_of_them_are_looked_for() -> None:
    assert {each.bug for each in PLANTED} == set(planted.BUGS)
