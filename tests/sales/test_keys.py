"""A key that is pressed again names its order still, whatever became of the ids before.

Seen red with an abandoned order taken for what was asked under the key first, and with an order
given back at the gate by whoever asked for another body.
"""

import pytest

from onsale.domain.errors import IdempotencyKeyReused
from onsale.domain.ids import fingerprint, order_id
from onsale.domain.order import Item
from onsale.gate.codec import encode_body
from onsale.ledger.ledger import OrderKey
from onsale.sales.baskets import Asked
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.races.conftest import running
from tests.support import MakeEvent


async def test_another_body_on_its_way_past_an_abandoned_id_is_no_reason_to_refuse(
    service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(5)
    abandoned = order_id(event.id, "buyer", "key")
    await service.ledger.fence([OrderKey(event.id, abandoned)])
    asked = Asked((("t1", 1),), None)
    placed = await service.placing.place(event.id, "buyer", "key", asked)
    assert placed.order.id == order_id(event.id, "buyer", "key", 1)
    # At another process, by mistake: asked of the gate, and not yet of the ledger.
    other = (Item(1, 2),)
    body = encode_body("buyer", fingerprint(other, None), other)
    assert event.gate_epoch is not None
    await service.gate.admit(event.id, event.gate_epoch, [(abandoned, body)])
    again = await service.placing.place(event.id, "buyer", "key", asked)
    assert again.replayed
    assert again.order.id == placed.order.id


async def test_who_asks_for_another_body_gives_back_nothing_of_the_first(
    settings: Settings, service: Service, make_event: MakeEvent
) -> None:
    """At a process that has given the gate up, so that the ledger tells it of the first."""
    event = await make_event(5)
    await service.placing.place(event.id, "buyer", "key", Asked((("t1", 1),), None))
    changes = {"gate_deadline_seconds": 1e-6, "redis_rest_seconds": 1e-6}
    async with running(settings.model_copy(update=changes)) as hasty:
        with pytest.raises(IdempotencyKeyReused):
            await hasty.placing.place(event.id, "buyer", "key", Asked((("t1", 2),), None))
    assert event.gate_epoch is not None
    seen = await service.gate.availability(event.id, event.gate_epoch)
    assert seen.available_units == {1: 4}
