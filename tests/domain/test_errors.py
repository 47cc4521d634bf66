"""Every error has a code of the contract and a sentence that a client may read."""

import pytest

from onsale.domain import errors
from onsale.domain.errors import OnsaleError, Refused, Unavailable

BASES = {OnsaleError, Refused}


def all_errors() -> list[type[OnsaleError]]:
    found, waiting = [], [OnsaleError]
    while waiting:
        kind: type[OnsaleError] = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == errors.__name__ and kind not in BASES]


@pytest.mark.parametrize("kind", all_errors())
def test_an_error_has_a_code_and_a_sentence(kind: type[OnsaleError]) -> None:
    assert kind.code == kind.code.lower()
    assert kind.code.replace("_", "").isalpha()
    assert kind.__doc__
    sentence = kind.__doc__.strip()
    assert sentence.endswith(".")
    assert "\n" not in sentence


def test_each_refusal_has_a_code_of_its_own() -> None:
    """Clients decide by the code; what is unavailable may share one, for the advice is the same."""
    codes = [kind.code for kind in all_errors() if issubclass(kind, Refused)]
    assert len(codes) == len(set(codes))


def test_the_tree_at_the_top_of_the_module_is_complete() -> None:
    assert errors.__doc__
    for kind in all_errors():
        assert kind.__name__ in errors.__doc__, kind


def test_a_refusal_is_final_and_an_outage_is_not() -> None:
    assert not any(
        issubclass(kind, Refused) and issubclass(kind, Unavailable) for kind in all_errors()
    )
