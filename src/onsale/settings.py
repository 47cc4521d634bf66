"""Every setting of a process, read from `ONSALE_…` environment variables.

The unit is the last word of each name; the reason for a default stands beside it.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, IPvAnyNetwork, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]

# RFC 7518 section 3.2 asks an HS256 key to be no shorter than its hash.
AUTH_SECRET_BYTES_MIN = 32


class Settings(BaseSettings):
    """The frozen configuration of one process; raises `ValidationError` on a bad value."""

    model_config = SettingsConfigDict(env_prefix="ONSALE_", frozen=True, extra="ignore")

    # -- the two stores
    database_url: Annotated[str, Field(pattern=r"^postgresql\+asyncpg://")] = (
        "postgresql+asyncpg://onsale@127.0.0.1:5432/onsale"
    )
    # `redis+cluster://` and `rediss+cluster://` name any node of a cluster: the others are asked of
    # it, and take the same password and TLS settings. Said, not found out: a node that is down
    # cannot tell what it belongs to.
    redis_url: Annotated[str, Field(pattern=r"^(rediss?(\+cluster)?|unix)://")] = (
        "redis://127.0.0.1:6379/0"
    )

    # -- who is calling: exactly one of the two; neither has a default on purpose
    auth_secret: SecretStr | None = None
    auth_jwks_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    auth_jwks_cache_seconds: Seconds = 300
    # Whoever brings an unknown token waits for the keys, and so do those behind them.
    auth_jwks_timeout_seconds: Seconds = 2.0
    # Bounds what remembered tokens take; each saves the signature check of a repeated press.
    auth_cache_size_max: Count = 8_000

    # -- where a process listens
    # API processes that share the port; each is one core's worth of Python.
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    host: str = "127.0.0.1"
    port: Port = 8000
    metrics_host: str = "127.0.0.1"
    # The first of a range: with N API processes each takes the first free one of N ports.
    metrics_port: Port = 9100
    # Each kind of worker in its own process has its own port.
    worker_metrics_port: Port = 9200

    # -- group commit: a batch is what arrived while the last one was in flight
    # 512 orders are one script call of about 2 ms, the longest that anyone else waits for Redis.
    gate_batch_size_max: Count = 512
    ledger_batch_size_max: Count = 512
    # Two: one is being prepared and sent while the other waits for the disk.
    ledger_batches_in_flight_max: Count = 2
    # At 5,000 orders a second 10,000 waiting orders are two seconds, as long as a buyer waits.
    batch_queue_size_max: Count = 10_000

    # -- overload
    # Who would wait longer for a store is refused at once: buyers press again by then anyway.
    order_deadline_seconds: Seconds = 2.0
    # Of a burst that finds the process at ease.
    orders_in_flight_max: Count = 10_000
    # And while the process itself is short of time: 128 fill its batches, at 7,000 orders a second
    # they wait for 20 ms, and more would only wait longer.
    orders_in_flight_busy_max: Count = 128
    # Everything but orders and streams: payments, releases, what organisers do, and half as many
    # that only look. More than the pool has connections for wait for one, for a moment.
    requests_in_flight_max: Count = 512

    # -- rate limits of orders; none unless a rate is set
    # Orders a second in the long run, and how many at once before that counts.
    rate_limit_buyer_per_second: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    rate_limit_buyer_burst: Count = 10
    # Behind one address may be a company or a whole mobile network.
    rate_limit_address_per_second: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    rate_limit_address_burst: Count = 100
    # Networks of proxies that say in X-Forwarded-For whom they were asked by: `["10.0.0.0/8"]`.
    # Anybody else could write there what they like.
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    # `RateLimit` and `RateLimit-Policy`, which are a draft of the IETF and may change.
    rate_limit_headers: bool = False

    # -- the gate
    # To each server of it.
    redis_connections_max: Count = 32
    redis_timeout_seconds: Seconds = 2.0
    # A batch of orders that the gate has not decided by then is admitted by the ledger: far longer
    # than the gate takes, and soon enough that buyers do not notice.
    gate_deadline_seconds: Seconds = 0.5
    # A gate that failed is left alone for this long before it is asked again.
    redis_rest_seconds: Seconds = 0.5
    # 250 ms: a refresh costs one short script, and buyers wait longer for a page.
    sale_view_age_seconds_max: Seconds = 0.25

    # -- the ledger
    # Two batches in flight, the rest for payments, reads and admin.
    db_pool_size_max: Count = 10
    db_pool_timeout_seconds: Seconds = 5.0
    # To each host of the URL: one that is silent is not waited for, and the next one is asked.
    db_connect_timeout_seconds: Seconds = 2.0
    # A fail-over is waited out for so long, from its beginning; then everybody is told at once.
    db_outage_patience_seconds: Seconds = 1.0
    db_statement_timeout_seconds: Seconds = 5.0
    db_lock_timeout_seconds: Seconds = 3.0

    # -- HTTP
    # Answers on their way get this long when the process is told to stop.
    shutdown_seconds: Annotated[int, Field(ge=1, le=300)] = 10
    availability_streams_max: Count = 1_000
    availability_stream_interval_seconds: Seconds = 0.5

    # -- payment, by the simulated provider
    payment_timeout_seconds: Seconds = 3.0
    simulated_payment_slow_seconds: Seconds = 1.0
    # Where the simulated provider writes down what it was told; nowhere, unless somebody checks.
    simulated_payment_books: Path | None = None

    # -- workers
    # A quarter of the two seconds within which an expired hold is back on sale.
    sweeper_interval_seconds: Seconds = 0.5
    reconciler_interval_seconds: Seconds = 1.0
    # Longer than a statement may take: an order still on its way to the ledger is left alone.
    reconciler_grace_seconds: Seconds = 10.0
    outbox_interval_seconds: Seconds = 0.5

    # -- webhooks
    webhook_interval_seconds: Seconds = 0.5
    # For receivers on this machine or network, and such without TLS. Otherwise whoever may register
    # an endpoint could have this service send into the network that it stands in.
    webhook_private_targets_allowed: bool = False
    # For a whole attempt; Standard Webhooks recommends 15 to 30 s.
    webhook_timeout_seconds: Seconds = 15.0
    # To one endpoint from one process: enough for 80 messages a second at 100 ms each.
    webhooks_in_flight_max: Annotated[int, Field(ge=1, le=100)] = 8
    # Each pause is four times the one before, up to a day: ten attempts take two days, and a
    # receiver may be away for a weekend's better part.
    webhook_attempts_max: Annotated[int, Field(ge=1, le=100)] = 10
    webhook_backoff_seconds: Seconds = 5.0
    webhook_backoff_seconds_max: Seconds = 86_400.0
    # Far longer than the attempts take; until then a message can be looked up and sent again.
    webhook_keep_days: Annotated[int, Field(ge=3, le=3_650)] = 30

    # -- load tests and their reports
    # The Prometheus that is told what k6 measures, and asked for the page about it. None, if empty.
    prometheus_url: str = ""

    # -- traces
    # Where they are sent to, by OTLP over HTTP: `http://tempo:4318`. Nowhere, if empty, and then
    # nothing of it is loaded.
    tracing_endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    # One request in a hundred tells what the crowd meets,
    tracing_sample_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    # and of a spike so many are enough, in each process. A traced order costs as much as several
    # that are not: this bounds what traces cost (docs/tracing.md), whatever the crowd does.
    tracing_requests_per_second_max: Count = 20

    # -- the fault campaign
    # Where this process crashes (`sales.failpoints`). Nowhere, and then nothing is asked.
    failpoint: str = ""

    # -- logs
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _one_way_to_check_tokens(self) -> "Settings":
        if self.auth_secret is not None:
            secret = self.auth_secret.get_secret_value()
            if len(secret.encode()) < AUTH_SECRET_BYTES_MIN:
                raise ValueError(f"ONSALE_AUTH_SECRET needs {AUTH_SECRET_BYTES_MIN} bytes or more")
            if self.auth_jwks_url is not None:
                raise ValueError("set ONSALE_AUTH_SECRET or ONSALE_AUTH_JWKS_URL, not both")
        return self

    @property
    def auth_is_configured(self) -> bool:
        """Whether tokens can be checked at all; `serve` refuses to start when not."""
        return self.auth_secret is not None or self.auth_jwks_url is not None
