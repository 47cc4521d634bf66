"""A process of the API: it takes requests and answers them, unless it crashes before."""

from collections.abc import Callable

from onsale.domain.errors import OnsaleError, Unavailable
from tests.simulation.ending import Ending
from tests.simulation.history import Answer
from tests.simulation.ledger import OrderRow
from tests.simulation.organising import Organising
from tests.simulation.paying import Paying
from tests.simulation.placing import Placing
from tests.simulation.process import Process, Surroundings
from tests.simulation.sale import Catalog
from tests.simulation.scheduler import Promise, Steps
from tests.simulation.timing import EVENT_AGE_MS, PICTURE_AGE_MS

# What a client waits at; `None` is a connection that ended without an answer.
Connection = Promise[Answer | None]
Request = Callable[["Api"], Steps[OrderRow | None]]


class Api(Process):
    """See the module. After a crash it is there again at once, with an empty memory."""

    def __init__(self, around: Surroundings, name: str, skew_ms: int) -> None:
        super().__init__(around, name, skew_ms)
        self._connections: list[Connection] = []
        self._boot()

    def _boot(self) -> None:
        self.catalog = Catalog(self)
        self.placing = Placing(self, self.catalog)
        self.paying = Paying(self)
        self.ending = Ending(self, self.catalog)
        self.organising = Organising(self, self.catalog)

    def begin(self) -> None:
        """Keep the picture of the sale young, and what others changed about its event."""
        self.repeat(self.catalog.look_after, PICTURE_AGE_MS // 4, 2 * PICTURE_AGE_MS)
        self.repeat(self.catalog.reload, EVENT_AGE_MS // 2, 2 * EVENT_AGE_MS)

    def crash(self) -> None:
        """Every connection is reset; the process is there again at once."""
        super().crash()
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.keep(None)
        self._boot()
        self.begin()

    def serve(self, request: Request, connection: Connection) -> None:
        """Answer a request."""
        self._connections.append(connection)
        self.spawn(self._answer(request(self), connection))

    def _answer(self, request: Steps[OrderRow | None], connection: Connection) -> Steps[None]:
        try:
            row = yield from request
        except OnsaleError as error:
            answer = Answer("unavailable" if isinstance(error, Unavailable) else error.code)
        else:
            answer = _answer_of(row)
        connection.keep(answer)
        self._connections.remove(connection)


def _answer_of(row: OrderRow | None) -> Answer:
    if row is None:
        return Answer("released")
    return Answer(row.status.value, row.order.order_id, row.order.fingerprint)
