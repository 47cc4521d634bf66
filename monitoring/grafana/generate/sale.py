"""What is sold: orders, money, stock, holds, and whether the books are right."""

from monitoring.grafana.generate.panels import (
    NEUTRAL,
    Dashboard,
    Panel,
    Query,
    Row,
    above,
    below,
    stat,
)
from monitoring.grafana.generate.queries import (
    EVENT,
    PROCESS,
    RATE,
    or_zero,
    quantile,
    rate,
    share,
    stock,
)

RANGE = "[$__range]"
HELD = f'sum(increase(onsale_orders_total{{{EVENT},outcome="held"}}{RANGE}))'
CONFIRMED = f'sum(increase(onsale_orders_total{{{EVENT},outcome="confirmed"}}{RANGE}))'
ENDED = f'sum(increase(onsale_orders_ended_total{{{EVENT},reason=~"released|expired"}}{RANGE}))'

TODAY = Row(
    "The sale, over the time that is shown",
    (
        stat(
            "Sales open",
            "Events whose sale is open now, by the process that knows of most.",
            "none",
            NEUTRAL,
            "max(onsale_sales_open)",
        ),
        stat(
            "Tickets sold",
            "Of the chosen events, since each began. Ends at their capacity.",
            "none",
            NEUTRAL,
            f"sum({stock('onsale_stock_sold')})",
        ),
        stat(
            "Sold, of the capacity",
            "Good: 100 % in the end. Below it with a crowd at the door, something turns buyers"
            " away.",
            "percentunit",
            NEUTRAL,
            f"sum({stock('onsale_stock_sold')}) / sum({stock('onsale_stock_capacity')})",
        ),
        stat(
            "Revenue so far",
            "Of tickets confirmed in the time that is shown, in the currency's minor units"
            " (cents).",
            "none",
            NEUTRAL,
            f"sum(increase(onsale_revenue_minor_units_total{{{EVENT}}}{RANGE}))",
        ),
        stat(
            "Winners who stayed",
            "Orders that were not given up or left to expire, of those that got seats. Good: over"
            " 70 %; less means that paying is too hard, or holds are too short.",
            "percentunit",
            below(0.5, 0.7),
            f"clamp_min(1 - {share(ENDED, f'({HELD} + {or_zero(CONFIRMED)} or {CONFIRMED})')}, 0)",
        ),
        stat(
            "Oversold tickets",
            "Must be 0, always. Above it people stand at a door with a ticket and no seat.",
            "none",
            above(1),
            f"sum(max by (event)(onsale_oversold_tickets{{{EVENT}}}))",
        ),
    ),
    height=4,
)

ORDERS = Row(
    "Orders and money",
    (
        Panel(
            "Orders by outcome",
            "Good: held and confirmed until sold_out. Replayed are second presses; error should"
            " not appear.",
            "reqps",
            NEUTRAL,
            (Query(rate("onsale_orders_total", EVENT, "outcome"), "{{outcome}}"),),
            stacked=True,
        ),
        Panel(
            "Tickets confirmed",
            "A second, by tier. Good: follows the crowd until the tier is sold.",
            "ops",
            NEUTRAL,
            (
                Query(
                    rate("onsale_tickets_sold_total", EVENT, "event", "tier"), "{{event}} {{tier}}"
                ),
            ),
        ),
        Panel(
            "Revenue",
            "Minor units a second, by currency. Good: falls to 0 with the sell-out, not before.",
            "none",
            NEUTRAL,
            (Query(rate("onsale_revenue_minor_units_total", EVENT, "currency"), "{{currency}}"),),
        ),
    ),
)

STOCK = Row(
    "Stock by tier",
    (
        Panel(
            "On sale",
            "By the gate. Good: falls to 0 and stays there, but for holds that end unpaid.",
            "none",
            NEUTRAL,
            (Query(stock("onsale_stock_available"), "{{event}} {{tier}}"),),
        ),
        Panel(
            "Held and unpaid",
            "By the ledger. Good: drains within the hold time; a plateau that stays is a sweeper"
            " that does not run.",
            "none",
            NEUTRAL,
            (Query(stock("onsale_stock_held"), "{{event}} {{tier}}"),),
        ),
        Panel(
            "Orders that ended",
            "Released, expired, refunded and abandoned, a second. Good: few; abandoned only after"
            " a crash.",
            "ops",
            NEUTRAL,
            (
                Query(
                    or_zero(rate("onsale_orders_ended_total", f'{EVENT},reason="released"')),
                    "released",
                ),
                Query(
                    or_zero(rate("onsale_orders_ended_total", f'{EVENT},reason="expired"')),
                    "expired",
                ),
                Query(
                    or_zero(rate("onsale_orders_ended_total", f'{EVENT},reason="refunded"')),
                    "refunded",
                ),
                Query(
                    or_zero(rate("onsale_orders_ended_total", f'{EVENT},reason="abandoned"')),
                    "abandoned",
                ),
            ),
        ),
    ),
)

CHECKOUT = Row(
    "Paying",
    (
        Panel(
            "Payments by outcome",
            "Good: nearly all ok. Declined is the buyer's card; timeout is the provider.",
            "ops",
            NEUTRAL,
            (Query(rate("onsale_payments_total", PROCESS, "outcome"), "{{outcome}}"),),
            stacked=True,
        ),
        Panel(
            "One authorisation",
            "At the payment provider. Good: p95 under a second; at 3 s it is given up.",
            "s",
            above(1, 3),
            tuple(
                Query(
                    quantile(rank, "onsale_payment_duration_seconds", PROCESS),
                    f"p{rank * 100:.0f}",
                )
                for rank in (0.5, 0.95)
            ),
        ),
        Panel(
            "From hold to confirmation",
            "p50 and p95 by the ledger's clock. Good: well below the hold time, or buyers lose"
            " their seats while they type.",
            "s",
            above(300, 600),
            tuple(
                Query(
                    quantile(rank, "onsale_checkout_duration_seconds", PROCESS),
                    f"p{rank * 100:.0f}",
                )
                for rank in (0.5, 0.95)
            ),
        ),
    ),
)

BOOKS = Row(
    "The books",
    (
        Panel(
            "Orders in one store only",
            "Past the grace period, at the last full comparison. Good: 0; the reconciler mends the"
            " rest within its next passes.",
            "none",
            above(1),
            (Query(f"max by (event)(onsale_gate_drift_orders{{{EVENT}}})", "{{event}}"),),
            width=6,
        ),
        Panel(
            "Repairs",
            "What the reconciler mended, a second. Good: none without a crash or a lost"
            " connection.",
            "ops",
            above(0.1, 10),
            (Query(or_zero(f"sum(rate(onsale_reconciler_repairs_total{RATE}))"), "repairs"),),
            width=6,
        ),
        Panel(
            "Longest overdue hold",
            "Good: under 2 s, within which an expired hold has to be back on sale.",
            "s",
            above(1, 2),
            (Query("max(onsale_sweeper_lag_seconds)", "overdue"),),
            width=6,
        ),
        Panel(
            "Waiting to be told",
            "Captures and voids for the payment provider, and webhook messages. Good: drains within"
            " seconds.",
            "none",
            above(100, 1_000),
            (
                Query("max(onsale_outbox_backlog)", "outbox"),
                Query("max(onsale_webhook_backlog)", "webhooks"),
                Query("max(onsale_webhook_dead_letters)", "webhooks given up"),
            ),
            width=6,
        ),
    ),
)

SALE = Dashboard(
    "sale",
    "Sale",
    "Orders, money, stock and holds of the chosen events, and whether the books are right.",
    (TODAY, ORDERS, STOCK, CHECKOUT, BOOKS),
)
