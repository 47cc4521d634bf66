"""Every metric of every process, defined once, with its help text.

Label values are bounded: route templates, enums, and event and tier ids as folded by
`event_label` (the newest `EVENTS_LABELLED_MAX` events keep their id, the others are `other`).
No label ever holds a buyer or an order.
"""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from onsale.observability.bulk import BulkHistogram

# 0.5, 0.8 and 1 s are bounds of the objectives; the rest spreads around them.
HTTP_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    0.8,
    1,
    2,
    5,
    10,
)
STORE_SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.5,
    1,
    5,
)
BATCH_ORDERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

EVENTS_LABELLED_MAX = 20

# A series of creation times beside every counter would double what is scraped and stored.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here

# -- HTTP
http_requests_total = Counter(
    "onsale_http_requests_total", "Requests answered.", ["method", "route", "status"]
)
http_request_duration_seconds = BulkHistogram(
    "onsale_http_request_duration_seconds",
    "From the first byte read by the application to the last byte of the answer.",
    ["method", "route", "status_class"],
    buckets=HTTP_SECONDS,
)
http_requests_in_flight = Gauge("onsale_http_requests_in_flight", "Requests being answered.")
http_response_bytes_total = Counter(
    "onsale_http_response_bytes_total", "Bytes of answers' bodies.", ["route"]
)

# -- sale
orders_total = Counter(
    "onsale_orders_total", "Order requests by how they ended.", ["event", "outcome"]
)
orders_ended_total = Counter(
    "onsale_orders_ended_total",
    "Orders that stopped being live: released, expired, refunded, abandoned.",
    ["event", "reason"],
)
tickets_sold_total = Counter("onsale_tickets_sold_total", "Tickets confirmed.", ["event", "tier"])
stock_available = Gauge("onsale_stock_available", "Units on sale, by the gate.", ["event", "tier"])
stock_held = Gauge("onsale_stock_held", "Units held and unpaid, by the ledger.", ["event", "tier"])
stock_sold = Gauge("onsale_stock_sold", "Units confirmed, by the ledger.", ["event", "tier"])
stock_capacity = Gauge("onsale_stock_capacity", "Units there are.", ["event", "tier"])
sales_open = Gauge("onsale_sales_open", "Events whose sale is open now.")
revenue_minor_units_total = Counter(
    "onsale_revenue_minor_units_total",
    "Price of the confirmed tickets, in the currency's minor units.",
    ["event", "currency"],
)
payments_total = Counter("onsale_payments_total", "Payments by how they ended.", ["outcome"])
payment_duration_seconds = Histogram(
    "onsale_payment_duration_seconds",
    "One authorisation at the payment provider.",
    buckets=HTTP_SECONDS,
)
checkout_duration_seconds = Histogram(
    "onsale_checkout_duration_seconds",
    "From hold to confirmation, by the ledger's clock.",
    buckets=(0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 600, 1200),
)

# -- books
oversold_tickets = Gauge(
    "onsale_oversold_tickets",
    "Tickets sold beyond capacity; anything but 0 is an alarm.",
    ["event"],
)
gate_drift_orders = Gauge(
    "onsale_gate_drift_orders",
    "Order ids in one store only, past the grace period, at the last full comparison.",
    ["event"],
)
reconciler_repairs_total = Counter(
    "onsale_reconciler_repairs_total",
    "Repairs: fenced, given_back, adopted, rebuilt.",
    ["kind"],
)
reconciler_last_success_timestamp_seconds = Gauge(
    "onsale_reconciler_last_success_timestamp_seconds", "When a pass last ended well."
)
sweeper_lag_seconds = Gauge(
    "onsale_sweeper_lag_seconds", "How long the longest overdue hold has been overdue."
)
outbox_backlog = Gauge("onsale_outbox_backlog", "Payments waiting for a capture or a void.")

# -- webhooks
webhook_attempts_total = Counter(
    "onsale_webhook_attempts_total",
    "Attempts to deliver: delivered, refused, gone, timeout, unreachable, forbidden.",
    ["outcome"],
)
webhook_attempt_duration_seconds = Histogram(
    "onsale_webhook_attempt_duration_seconds",
    "One attempt to deliver, sent and answered.",
    buckets=HTTP_SECONDS,
)
webhook_lag_seconds = Gauge(
    "onsale_webhook_lag_seconds",
    "How long the message that has been due longest has waited for an attempt.",
)
webhook_backlog = Gauge("onsale_webhook_backlog", "Messages not delivered yet.")
webhook_dead_letters = Gauge("onsale_webhook_dead_letters", "Messages given up, until re-sent.")

# -- group commit (stage: gate, ledger, ledger_only, throttle, webhooks)
batch_size = Histogram("onsale_batch_size", "Orders in one batch.", ["stage"], buckets=BATCH_ORDERS)
batch_duration_seconds = Histogram(
    "onsale_batch_duration_seconds",
    "One batch, sent and answered.",
    ["stage"],
    buckets=STORE_SECONDS,
)
batch_job_seconds_total = Counter(
    "onsale_batch_job_seconds_total",
    "For how long orders waited for their batch and were in it, all of them together.",
    ["stage"],
)
batch_queue_depth = Gauge("onsale_batch_queue_depth", "Orders waiting for a batch.", ["stage"])
batch_splits_total = Counter(
    "onsale_batch_splits_total",
    "Ledger batches split because one of their orders was refused.",
)

# -- admission
admissions_total = Counter(
    "onsale_admissions_total",
    "Order requests: accepted, shed, rate_limited.",
    ["decision"],
)
rate_limits_skipped_total = Counter(
    "onsale_rate_limits_skipped_total",
    "Order requests that no rate limit was held against, for Redis did not answer.",
)
orders_in_flight_limit = Gauge(
    "onsale_orders_in_flight_limit", "How many orders the process takes on at once, by measure."
)
circuit_breaker_state = Gauge(
    "onsale_circuit_breaker_state",
    "1 for the state in force: closed, open, half_open.",
    ["dependency", "state"],
)
circuit_breaker_transitions_total = Counter(
    "onsale_circuit_breaker_transitions_total",
    "Changes of a circuit breaker's state.",
    ["dependency", "to"],
)
gate_mode = Gauge(
    "onsale_gate_mode", "1 for the mode in force: redis, ledger_only, closed.", ["mode"]
)
gate_evicts = Gauge(
    "onsale_gate_evicts",
    "1 while a server of the gate lets keys go when it is full, and would forget who has a seat.",
)
gate_aof_enabled = Gauge(
    "onsale_gate_aof_enabled", "1 when every server of the gate keeps an append-only file."
)
gate_aof_ok = Gauge(
    "onsale_gate_aof_ok",
    "1 when the last write and the last rewriting of each server's append-only file went well.",
)
gate_aof_delayed_fsyncs = Gauge(
    "onsale_gate_aof_delayed_fsyncs",
    "Syncs of append-only files that had to wait for the disk, since the servers started.",
)

# -- ledger pool
db_pool_connections = Gauge(
    "onsale_db_pool_connections", "Connections of the pool: idle, in_use.", ["state"]
)
db_pool_size_max = Gauge("onsale_db_pool_size_max", "Most connections the pool opens.")
db_pool_waiters = Gauge("onsale_db_pool_waiters", "Tasks waiting for a connection.")
db_pool_acquire_seconds = Histogram(
    "onsale_db_pool_acquire_seconds", "Waiting for a connection.", buckets=STORE_SECONDS
)
db_query_duration_seconds = Histogram(
    "onsale_db_query_duration_seconds",
    "One ledger operation, without the wait for a connection.",
    ["operation"],
    buckets=STORE_SECONDS,
)
db_errors_total = Counter(
    "onsale_db_errors_total", "Ledger operations that failed.", ["operation", "error"]
)

# -- gate client
redis_operation_duration_seconds = Histogram(
    "onsale_redis_operation_duration_seconds",
    "One gate operation.",
    ["operation"],
    buckets=STORE_SECONDS,
)
redis_errors_total = Counter(
    "onsale_redis_errors_total", "Gate operations that failed.", ["operation", "error"]
)

# -- runtime
event_loop_lag_seconds = Histogram(
    "onsale_event_loop_lag_seconds",
    "How much later than asked the event loop woke a sleeper.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
)
cpu_wait_seconds_total = Counter(
    "onsale_cpu_wait_seconds_total",
    "For how long the event loop's thread could have run and had no core; Linux alone says so.",
)
log_write_seconds_total = Counter(
    "onsale_log_write_seconds_total",
    "For how long the process wrote log lines, and did nothing else meanwhile.",
)
dependency_up = Gauge(
    "onsale_dependency_up",
    "1 when the last check of the dependency went well.",
    ["dependency"],
)
build_info = Gauge("onsale_build_info", "Always 1; says which build runs.", ["version", "python"])


class EventLabels:
    """Folds event ids into a bounded set of label values: the newest few keep their id.

    Ids begin with the time of their making, so the newest are the greatest. The series of an event
    that has to make way are dropped, and from then on it counts as `other`.
    """

    def __init__(self, size_max: int = EVENTS_LABELLED_MAX) -> None:
        self._size_max = size_max
        self._labelled: set[str] = set()
        self._generation = 0

    def __call__(self, event_id: str) -> str:
        if event_id in self._labelled:
            return event_id
        if len(self._labelled) >= self._size_max:
            oldest = min(self._labelled)
            if event_id < oldest:
                return OTHER_EVENTS
            self._labelled.remove(oldest)
            self._generation += 1
            for metric in _EVENT_METRICS:
                metric.remove_by_labels({"event": oldest})
        self._labelled.add(event_id)
        return event_id

    @property
    def generation(self) -> int:
        """Changes when an event was folded: label children kept from before may be orphans."""
        return self._generation


OTHER_EVENTS = "other"
_EVENT_METRICS = (
    orders_total,
    orders_ended_total,
    tickets_sold_total,
    stock_available,
    stock_held,
    stock_sold,
    stock_capacity,
    revenue_minor_units_total,
    oversold_tickets,
    gate_drift_orders,
)

event_label = EventLabels()
