"""The gate's scripts are the reference model, on every server; and where they are not, it shows."""

import os
from typing import NamedTuple

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from onsale.embedded import EmbeddedValkey
from onsale.gate import scripts
from onsale.gate.scripts import ScriptName
from tests.gate.machine import machine_on

# In CI the same examples every time; elsewhere new ones, with a blob to replay what failed.
HELD_AGAINST_THE_MODEL = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
    report_multiple_bugs=False,
)
# A planted fault needs finding, not explaining: the first difference is enough.
LOOKING_FOR_A_FAULT = settings(
    HELD_AGAINST_THE_MODEL,
    max_examples=200,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)


def test_the_scripts_answer_as_the_model_does(server: EmbeddedValkey) -> None:
    run_state_machine_as_test(machine_on(server.url), settings=HELD_AGAINST_THE_MODEL)


class Fault(NamedTuple):
    """A mistake in a script: each text in it, and what stands there by mistake."""

    script: ScriptName
    mistakes: dict[str, str]


_TAKE = "left[tier] = left[tier] - quantity"
_SHORT = "lacking = lacking or units_left(tier) < quantity"

FAULTS = {
    "stock is not checked": Fault(ScriptName.ADMIT, {_SHORT: "units_left(tier)"}),
    "the last unit is kept back": Fault(ScriptName.ADMIT, {_SHORT: _SHORT.replace("<", "<=")}),
    "one unit too many is sold": Fault(
        ScriptName.ADMIT, {_SHORT: _SHORT.replace("< quantity", "< quantity - 1")}
    ),
    "only the first item is checked": Fault(
        ScriptName.ADMIT,
        {_SHORT: "lacking = units_left(tier) < quantity and i == 17 or lacking"},
    ),
    "a refused order keeps its first item": Fault(
        ScriptName.ADMIT,
        {_TAKE: "", _SHORT: f"{_SHORT}\n if not lacking then {_TAKE} end"},
    ),
    "an order takes only its first item": Fault(
        ScriptName.ADMIT,
        {_TAKE: f"if i == 17 then {_TAKE} end"},
    ),
    "a batch does not see its own orders": Fault(
        ScriptName.ADMIT,
        {"if refusal then return refusal end": "if refusal then return refusal end\n  left = {}"},
    ),
    "the limit is ignored": Fault(ScriptName.ADMIT, {"units > limit": "false"}),
    "the limit is one less": Fault(ScriptName.ADMIT, {"units > limit": "units >= limit"}),
    "the limit counts orders": Fault(
        ScriptName.ADMIT,
        {"units = units + quantity": "if i == 17 then units = units + 1 end"},
    ),
    "a repeated press takes again": Fault(ScriptName.ADMIT, {"if earlier then": "if false then"}),
    "a batch does not know its own ids": Fault(ScriptName.ADMIT, {"    taken[id] = stored\n": ""}),
    "another body passes for the same": Fault(
        ScriptName.ADMIT, {"SEEN or SEEN_WITH_OTHER_BODY": "SEEN or SEEN"}
    ),
    "a repeated press is told of the pause": Fault(
        ScriptName.ADMIT,
        {"  local earlier =": "  if refusal then return refusal end\n  local earlier ="},
    ),
    "a pause does not stop the sale": Fault(ScriptName.ADMIT, {"== 'paused'": "== 'stopped'"}),
    "the sale opens early": Fault(ScriptName.ADMIT, {"now_ms < tonumber(sale[3])": "false"}),
    "the sale never ends": Fault(ScriptName.ADMIT, {" or now_ms >= tonumber(sale[4])": ""}),
    "the log is forgotten": Fault(ScriptName.ADMIT, {"  seen[#seen + 1] = sub(id, 1, 8)\n": ""}),
    "the log names only the last": Fault(
        ScriptName.ADMIT, {"seen[#seen + 1] = sub": "seen[1] = sub"}
    ),
    "who is admitted is told too many": Fault(
        ScriptName.ADMIT, {"seen_bytes / 8": "seen_bytes / 4"}
    ),
    "stock comes back twice": Fault(
        ScriptName.GIVE_BACK, {"redis.call('HDEL', KEYS[3], ARGV[i])": ""}
    ),
    "only the first item comes back": Fault(
        ScriptName.GIVE_BACK, {"for j = 1, #items, 2 do": "for j = 1, 2, 2 do"}
    ),
    "buyers do not get their limit back": Fault(
        ScriptName.GIVE_BACK, {"if limit > 0 then": "if false then"}
    ),
    "buyers without units are kept": Fault(
        ScriptName.GIVE_BACK, {"redis.call('HDEL', KEYS[4], buyer)": ""}
    ),
    "an order is adopted twice": Fault(ScriptName.ADOPT, {"if not here then": "if true then"}),
    "an order is adopted twice in one call": Fault(
        ScriptName.ADOPT, {"if not body_of[ARGV[i]] then": "if true then"}
    ),
    "adopted orders do not count for the limit": Fault(
        ScriptName.ADOPT, {"if limit > 0 then": "if false then"}
    ),
    "adopting stops at the last unit": Fault(
        ScriptName.ADOPT,
        {
            "redis.call('HINCRBY', KEYS[2], tier, -units)": (
                "redis.call('HSET', KEYS[2], tier,"
                " math.max(0, tonumber(redis.call('HGET', KEYS[2], tier)) - units))"
            )
        },
    ),
    "a new capacity forgets what is taken": Fault(
        ScriptName.CONFIGURE,
        {
            "redis.call('HINCRBY', KEYS[2], tier, difference)": (
                "redis.call('HSET', KEYS[2], tier, capacity) + capacity"
            )
        },
    ),
    "a capacity below what is taken is ignored": Fault(
        ScriptName.CONFIGURE,
        {
            "if difference ~= 0 then": (
                "if tonumber(redis.call('HGET', KEYS[2], tier)) + difference < 0 then"
                " difference = 0 end\n  if difference ~= 0 then"
            )
        },
    ),
    "those who had an order are forgotten": Fault(
        ScriptName.MARK, {"for i = 2, #ARGV do": "for i = 3, #ARGV do"}
    ),
    "loading keeps the orders of before": Fault(
        ScriptName.LOAD,
        {
            "redis.call('UNLINK', unpack(KEYS))": (
                "redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[4], KEYS[5], KEYS[6])"
            )
        },
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_script_is_found(
    fault: str, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this, a machine that compares nothing would pass for a proof."""
    script, mistakes = FAULTS[fault]
    right = scripts.source(script)
    wrong = right
    for text, mistake in mistakes.items():
        assert wrong.count(text) == 1, f"{script}.lua has changed: plant the fault anew"
        wrong = wrong.replace(text, mistake)
    real_source = scripts.source
    monkeypatch.setattr(
        scripts, "source", lambda name: wrong if name is script else real_source(name)
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine_on(valkey.url), settings=LOOKING_FOR_A_FAULT)
