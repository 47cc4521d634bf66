"""The statements in which an order changes, each one transaction of its own.

They lock in one order, so that no two can wait for each other: orders by (event, id), then buyers
by (event, buyer), then tiers by (event, number). `first commit wins` is a `WHERE status = …`. What
is to be told of a change is written down with it.
"""

# A row for every buyer of `items (event_id, order_id, quantity)` at events with a limit.
_BUYERS = """
SELECT o.event_id, o.buyer_id, sum(quantity)::int AS units, max_per_buyer_units AS limit_units
FROM {orders} AS o
JOIN items ON items.event_id = o.event_id AND items.order_id = o.id
JOIN events ON events.id = o.event_id AND max_per_buyer_units > 0
GROUP BY 1, 2, 4 ORDER BY 1, 2
"""


def _told(changed: str) -> str:
    """A CTE that writes a message for each order of the CTE `changed (event_id, id, status)` and
    each endpoint that wants to know. With nobody to tell, the orders are not looked at. A change
    happens once; should its message be there nevertheless, that is no reason to fail a purchase.
    """
    return f"""
told AS (
    INSERT INTO webhook_deliveries (event_id, order_id, status, endpoint_id)
    SELECT changed.event_id, changed.id, changed.status, endpoints.id
    FROM {changed} AS changed JOIN webhook_endpoints AS endpoints
      ON endpoints.disabled_at IS NULL AND changed.status = ANY (endpoints.statuses)
    WHERE EXISTS (SELECT FROM webhook_endpoints)
    ON CONFLICT DO NOTHING
)"""


# $1–$7: orders as parallel arrays (event, id, buyer, status, fingerprint, amount, hold seconds);
# $8–$11: their items (event, order, tier, quantity).
# Returns the ledger's time and the ids that are new here; the others were here already.
PLACE = f"""
WITH asked AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::int[]
    ) AS a (event_id, id, buyer_id, status, fingerprint, amount, hold_seconds)
), placed AS (
    INSERT INTO orders (event_id, id, buyer_id, status, fingerprint, amount_minor_units,
                        created_at, confirmed_at, expires_at)
    SELECT event_id, id, buyer_id, status::order_status, fingerprint, amount, now(),
           CASE WHEN status = 'confirmed' THEN now() END,
           CASE WHEN status = 'held' THEN now() + make_interval(secs => hold_seconds) END
    FROM asked ORDER BY event_id, id
    ON CONFLICT DO NOTHING
    RETURNING event_id, id, buyer_id, status
), items AS (
    INSERT INTO order_items (event_id, order_id, tier_number, quantity)
    SELECT i.event_id, i.order_id, i.tier_number, i.quantity
    FROM unnest($8::uuid[], $9::uuid[], $10::smallint[], $11::smallint[])
        AS i (event_id, order_id, tier_number, quantity)
    JOIN placed ON placed.event_id = i.event_id AND placed.id = i.order_id
    RETURNING event_id, order_id, tier_number, quantity
), bought AS (
    INSERT INTO buyer_units (event_id, buyer_id, units, limit_units)
    {_BUYERS.format(orders="placed")}
    ON CONFLICT (event_id, buyer_id) DO UPDATE SET units = buyer_units.units + excluded.units
    RETURNING 1
), units AS (
    SELECT items.event_id, tier_number, sum(quantity) AS reserved,
           coalesce(sum(quantity) FILTER (WHERE status = 'confirmed'), 0) AS sold
    FROM items JOIN placed ON placed.event_id = items.event_id AND placed.id = items.order_id
    GROUP BY items.event_id, tier_number
), locked AS (
    SELECT tiers.event_id, number, units.reserved, units.sold
    FROM tiers JOIN units ON units.event_id = tiers.event_id AND tier_number = number
    WHERE (SELECT count(*) FROM bought) >= 0  -- buyers before tiers
    ORDER BY tiers.event_id, number FOR NO KEY UPDATE OF tiers
), counted AS (
    UPDATE tiers SET reserved = tiers.reserved + locked.reserved, sold = tiers.sold + locked.sold
    FROM locked WHERE tiers.event_id = locked.event_id AND tiers.number = locked.number
), {_told("placed")}
SELECT now() AS placed_at, (SELECT array_agg(id) FROM placed) AS placed_ids
"""

# -- admission by the ledger alone, in one transaction (see `admission`)

# $1 events, $2 ids, in parallel. A row for each that is here, whatever became of it.
SEEN = """
SELECT orders.id FROM orders
JOIN unnest($1::uuid[], $2::uuid[]) AS a (event_id, id)
  ON a.event_id = orders.event_id AND a.id = orders.id
"""

# $1 events. When they sell, by the ledger's clock, which is the time now and not that of the
# transaction's beginning.
SALES = """
SELECT id, switch::text, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms,
       floor(extract(epoch FROM sale_opens_at) * 1000)::bigint AS opens_at_ms,
       floor(extract(epoch FROM sale_closes_at) * 1000)::bigint AS closes_at_ms
FROM events WHERE id = ANY($1::uuid[])
"""

# $1 events. What is left of their tiers, at this instant.
AVAILABLE = """
SELECT event_id, number, capacity - reserved AS available_units
FROM tiers WHERE event_id = ANY($1::uuid[])
"""

# $1–$7: orders as `PLACE` takes them, but (event, id) first. The ids that are new here.
WRITE_CANDIDATES = """
INSERT INTO orders (event_id, id, buyer_id, status, fingerprint, amount_minor_units,
                    created_at, confirmed_at, expires_at, unheard)
SELECT event_id, id, buyer_id, status::order_status, fingerprint, amount, now(),
       CASE WHEN status = 'confirmed' THEN now() END,
       CASE WHEN status = 'held' THEN now() + make_interval(secs => hold_seconds) END, true
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::int[])
    AS a (event_id, id, buyer_id, status, fingerprint, amount, hold_seconds)
ORDER BY event_id, id
ON CONFLICT DO NOTHING
RETURNING id
"""

# $1 events, $2 buyers, in parallel. What each may still have, for events with a limit, locked.
LOCK_BUYERS = """
INSERT INTO buyer_units (event_id, buyer_id, units, limit_units)
SELECT event_id, buyer_id, 0, max_per_buyer_units
FROM unnest($1::uuid[], $2::text[]) AS a (event_id, buyer_id)
JOIN events ON events.id = event_id AND max_per_buyer_units > 0
ORDER BY event_id, buyer_id
ON CONFLICT (event_id, buyer_id) DO UPDATE SET units = buyer_units.units
RETURNING event_id, buyer_id, limit_units - units AS allowance_units
"""

# $1 events, $2 tier numbers, in parallel. What is left of each, locked.
LOCK_TIERS = """
SELECT tiers.event_id, tiers.number, capacity - reserved AS available_units
FROM tiers JOIN unnest($1::uuid[], $2::smallint[]) AS a (event_id, number)
  ON a.event_id = tiers.event_id AND a.number = tiers.number
ORDER BY tiers.event_id, tiers.number FOR NO KEY UPDATE OF tiers
"""

# $1 events, $2 ids: candidates that were refused, and whom nobody else has seen.
TAKE_AWAY = """
DELETE FROM orders USING unnest($1::uuid[], $2::uuid[]) AS a (event_id, id)
WHERE orders.event_id = a.event_id AND orders.id = a.id
"""

# $1–$4 items (event, order, tier, quantity), $5–$7 (event, buyer, units), $8–$11 (event, tier,
# reserved, sold); every row that is changed is locked already.
SETTLE = f"""
WITH items AS (
    INSERT INTO order_items (event_id, order_id, tier_number, quantity)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::smallint[])
), admitted AS (
    SELECT event_id, id, status FROM orders
    WHERE (event_id, id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))
), {_told("admitted")}, bought AS (
    UPDATE buyer_units AS b SET units = b.units + a.units
    FROM unnest($5::uuid[], $6::text[], $7::int[]) AS a (event_id, buyer_id, units)
    WHERE b.event_id = a.event_id AND b.buyer_id = a.buyer_id
)
UPDATE tiers SET reserved = tiers.reserved + a.reserved, sold = tiers.sold + a.sold
FROM unnest($8::uuid[], $9::smallint[], $10::int[], $11::int[])
    AS a (event_id, number, reserved, sold)
WHERE tiers.event_id = a.event_id AND tiers.number = a.number
"""

# $1 event, $2 most orders. What the ledger admitted alone, oldest first, whatever became of it.
UNHEARD = "SELECT id FROM orders WHERE event_id = $1 AND unheard ORDER BY created_at LIMIT $2"

# $1 events. Those that have such orders.
WITH_UNHEARD = """
SELECT id FROM unnest($1::uuid[]) AS a (id)
WHERE EXISTS (SELECT FROM orders WHERE event_id = a.id AND unheard)
"""

# $1 event, $2 ids: the gate knows of them.
HEARD = "UPDATE orders SET unheard = false WHERE event_id = $1 AND id = ANY($2::uuid[])"

# -- ending

# What follows from the CTE `ended (event_id, id, buyer_id, status, was_confirmed)`: its units go
# back to their buyers and their tiers.
_UNITS_BACK = f"""
items AS (
    SELECT order_items.event_id, order_id, tier_number, quantity, was_confirmed
    FROM order_items
    JOIN ended ON ended.event_id = order_items.event_id AND ended.id = order_items.order_id
), buyers AS (
    {_BUYERS.format(orders="ended")}
), locked_buyers AS (
    SELECT b.event_id, b.buyer_id, buyers.units
    FROM buyer_units b
    JOIN buyers ON buyers.event_id = b.event_id AND buyers.buyer_id = b.buyer_id
    ORDER BY b.event_id, b.buyer_id FOR NO KEY UPDATE OF b
), gave_back AS (
    UPDATE buyer_units AS b SET units = b.units - locked_buyers.units
    FROM locked_buyers
    WHERE b.event_id = locked_buyers.event_id AND b.buyer_id = locked_buyers.buyer_id
    RETURNING 1
), units AS (
    SELECT event_id, tier_number, sum(quantity) AS reserved,
           coalesce(sum(quantity) FILTER (WHERE was_confirmed), 0) AS sold
    FROM items GROUP BY event_id, tier_number
), locked AS (
    SELECT tiers.event_id, number, units.reserved, units.sold
    FROM tiers JOIN units ON units.event_id = tiers.event_id AND tier_number = number
    WHERE (SELECT count(*) FROM gave_back) >= 0  -- buyers before tiers
    ORDER BY tiers.event_id, number FOR NO KEY UPDATE OF tiers
), counted AS (
    UPDATE tiers SET reserved = tiers.reserved - locked.reserved, sold = tiers.sold - locked.sold
    FROM locked WHERE tiers.event_id = locked.event_id AND tiers.number = locked.number
), {_told("ended")}
SELECT event_id, id FROM ended
"""

# $1 event, $2 order, $3 buyer. A row when the hold was released here and now.
RELEASE = f"""
WITH ended AS (
    UPDATE orders SET status = 'released', ended_at = now()
    WHERE event_id = $1 AND id = $2 AND buyer_id = $3 AND status = 'held' AND expires_at > now()
    RETURNING event_id, id, buyer_id, status, false AS was_confirmed
), {_UNITS_BACK}
"""

# $1 most orders to expire. A row for each hold that was overdue; two sweepers share the work.
EXPIRE = f"""
WITH due AS (
    SELECT event_id, id FROM orders
    WHERE status = 'held' AND expires_at <= now()
    ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
), ended AS (
    UPDATE orders SET status = 'expired', ended_at = now()
    FROM due WHERE orders.event_id = due.event_id AND orders.id = due.id
    RETURNING orders.event_id, orders.id, orders.buyer_id, orders.status,
              false AS was_confirmed
), {_UNITS_BACK}
"""

# $1 event, $2 order. A row when the order was refunded here and now; its money follows through
# the outbox.
REFUND = f"""
WITH ended AS (
    UPDATE orders SET status = 'refunded', ended_at = now()
    WHERE event_id = $1 AND id = $2 AND status = 'confirmed'
    RETURNING event_id, id, buyer_id, status, true AS was_confirmed
), money AS (
    UPDATE payments SET changed_at = now(), state = 'refund_due'
    WHERE event_id = $1 AND order_id = $2 AND state IN ('authorized', 'captured')
      AND EXISTS (SELECT FROM ended)
), {_UNITS_BACK}
"""

# $1 events, $2 ids: names orders abandoned that never reached the ledger. A row for each that was
# not here; only its stock may be given back. A worker that brings the order late finds it taken.
FENCE = """
INSERT INTO orders (event_id, id, buyer_id, status, fingerprint, amount_minor_units,
                    created_at, ended_at)
SELECT event_id, id, '', 'abandoned', 0, 0, now(), now()
FROM unnest($1::uuid[], $2::uuid[]) AS a (event_id, id) ORDER BY event_id, id
ON CONFLICT DO NOTHING
RETURNING event_id, id
"""

# $1 events, $2 orders, $3 buyers, $4 methods, in parallel; $5 most attempts of an order. A row with
# the attempt to make for each order that is payable, has no other attempt under way and not too
# many made; written down before the provider hears of it, so that a crash leaves nothing that
# nobody knows of.
BEGIN_PAYMENTS = """
INSERT INTO payments (event_id, order_id, attempt, method, amount_minor_units, state)
SELECT o.event_id, o.id, tried.last + 1, a.method, o.amount_minor_units, 'started'
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) AS a (event_id, id, buyer_id, method)
JOIN orders o ON o.event_id = a.event_id AND o.id = a.id AND o.buyer_id = a.buyer_id
CROSS JOIN LATERAL (
    SELECT coalesce(max(attempt), 0) AS last, count(*) AS attempts
    FROM payments p WHERE p.event_id = o.event_id AND p.order_id = o.id
) AS tried
WHERE o.status = 'held' AND o.expires_at > now() AND tried.attempts < $5
ORDER BY o.event_id, o.id
ON CONFLICT DO NOTHING
RETURNING event_id, order_id, attempt
"""

# $1 event, $2 order. Whether the hold is overdue, and the attempt that stands in the way of a new
# one with its age, if there is one.
PAYMENT_UNDER_WAY = """
SELECT o.expires_at <= now() AS overdue,
       (SELECT count(*) FROM payments WHERE event_id = $1 AND order_id = $2) AS attempts,
       p.attempt, p.method, extract(epoch FROM now() - p.changed_at)::float8 AS age_seconds
FROM orders o
LEFT JOIN payments p ON p.event_id = o.event_id AND p.order_id = o.id AND p.state = 'started'
WHERE o.event_id = $1 AND o.id = $2
"""

# $1 event, $2 order, $3 attempt, $4 state to leave, $5 state to enter. A row when it was there.
MOVE_PAYMENT = """
UPDATE payments SET state = $5::text::payment_state, changed_at = now()
WHERE event_id = $1 AND order_id = $2 AND attempt = $3 AND state = $4::text::payment_state
RETURNING attempt
"""

# $1 events, $2 orders, $3 attempts, in parallel. A row for each payment that confirmed its
# order: seconds since the hold. A payment is authorised in the same step, or else is to be let go.
CONFIRM = f"""
WITH asked AS (
    SELECT p.event_id, p.order_id, p.attempt
    FROM payments p
    JOIN unnest($1::uuid[], $2::uuid[], $3::int[]) AS a (event_id, order_id, attempt)
      ON a.event_id = p.event_id AND a.order_id = p.order_id AND a.attempt = p.attempt
    WHERE p.state = 'started'
    ORDER BY p.event_id, p.order_id, p.attempt FOR NO KEY UPDATE OF p
), held AS (
    SELECT o.event_id, o.id FROM orders o
    JOIN asked ON asked.event_id = o.event_id AND asked.order_id = o.id
    WHERE o.status = 'held' AND o.expires_at > now()
    ORDER BY o.event_id, o.id FOR NO KEY UPDATE OF o
), confirmed AS (
    UPDATE orders o SET status = 'confirmed', confirmed_at = now(), expires_at = NULL
    FROM held WHERE o.event_id = held.event_id AND o.id = held.id
    RETURNING o.event_id, o.id, o.status, o.created_at
), paid AS (
    UPDATE payments p SET changed_at = now(),
        state = (CASE WHEN confirmed.id IS NULL
                      THEN 'void_due' ELSE 'authorized' END)::payment_state
    FROM asked
    LEFT JOIN confirmed ON confirmed.event_id = asked.event_id AND confirmed.id = asked.order_id
    WHERE p.event_id = asked.event_id AND p.order_id = asked.order_id
      AND p.attempt = asked.attempt AND p.state = 'started'
), units AS (
    SELECT i.event_id, i.tier_number, sum(i.quantity) AS quantity
    FROM order_items i
    JOIN confirmed ON confirmed.event_id = i.event_id AND confirmed.id = i.order_id
    GROUP BY i.event_id, i.tier_number
), locked AS (
    SELECT t.event_id, t.number, units.quantity
    FROM tiers t JOIN units ON units.event_id = t.event_id AND units.tier_number = t.number
    ORDER BY t.event_id, t.number FOR NO KEY UPDATE OF t
), counted AS (
    UPDATE tiers t SET sold = t.sold + locked.quantity
    FROM locked WHERE t.event_id = locked.event_id AND t.number = locked.number
), {_told("confirmed")}
SELECT asked.event_id, asked.order_id, asked.attempt,
       extract(epoch FROM now() - confirmed.created_at)::float8 AS held_seconds
FROM confirmed
JOIN asked ON asked.event_id = confirmed.event_id AND asked.order_id = confirmed.id
"""

_READ = """
SELECT o.event_id, o.id, o.buyer_id, o.status::text, o.fingerprint, o.amount_minor_units,
       e.currency, o.created_at, o.expires_at,
       ARRAY(SELECT ARRAY[tier_number, quantity] FROM order_items i
             WHERE i.event_id = o.event_id AND i.order_id = o.id ORDER BY tier_number) AS items
FROM orders o JOIN events e ON e.id = o.event_id
"""

# $1 events, $2 ids, in parallel.
READ = f"""
{_READ}
JOIN unnest($1::uuid[], $2::uuid[]) AS asked (event_id, id)
  ON asked.event_id = o.event_id AND asked.id = o.id
"""

# $1 buyer, $2 most orders. Newest first.
READ_OF_BUYER = f"""
{_READ} WHERE o.buyer_id = $1 AND o.status <> 'abandoned'
ORDER BY o.created_at DESC, o.event_id DESC, o.id DESC LIMIT $2
"""

# $3–$5: created at, event and id of the order after which the page begins.
READ_OF_BUYER_AFTER = f"""
{_READ} WHERE o.buyer_id = $1 AND o.status <> 'abandoned'
  AND (o.created_at, o.event_id, o.id) < ($3, $4::uuid, $5::uuid)
ORDER BY o.created_at DESC, o.event_id DESC, o.id DESC LIMIT $2
"""

# $1 event, $2 most orders, $3 id after which the chunk begins. What the gate is told of them.
READ_LIVE_AFTER = """
SELECT id, buyer_id, fingerprint,
       ARRAY(SELECT ARRAY[tier_number, quantity] FROM order_items i
             WHERE i.event_id = $1 AND i.order_id = o.id ORDER BY tier_number) AS items
FROM orders o
WHERE event_id = $1 AND id > $3::uuid AND status IN ('held', 'confirmed')
ORDER BY id LIMIT $2
"""

# $1 event, $2 how many at most, $3 id after which to begin.
LIVE_IDS_AFTER = """
SELECT id FROM orders WHERE event_id = $1 AND id > $3::uuid AND status IN ('held', 'confirmed')
ORDER BY id LIMIT $2
"""

# $1 event, $2 ids.
KNOWN = """
SELECT id, status::text, fingerprint FROM orders WHERE event_id = $1 AND id = ANY($2::uuid[])
"""

# $1 event, $2 units. Buyers whose live orders come to more.
BUYERS_ABOVE = """
SELECT buyer_id, sum(quantity)::int AS units
FROM orders o CROSS JOIN LATERAL (
    SELECT quantity FROM order_items i WHERE i.event_id = o.event_id AND i.order_id = o.id OFFSET 0
) i
WHERE o.event_id = $1 AND o.status IN ('held', 'confirmed')
GROUP BY buyer_id HAVING sum(quantity) > $2 ORDER BY buyer_id
"""

# $1 event. Orders that have not one payment taken if they are confirmed, one given back if they are
# refunded, and none otherwise; what the outbox is about to do counts as done.
MONEY_ASTRAY = """
SELECT id, status::text, taken, given_back
FROM orders o CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE p.state IN ('authorized', 'captured'))::int AS taken,
           count(*) FILTER (WHERE p.state IN ('refund_due', 'refunded'))::int AS given_back
    FROM payments p WHERE p.event_id = o.event_id AND p.order_id = o.id
) AS paid
WHERE o.event_id = $1
  AND (taken <> (o.status = 'confirmed')::int OR given_back <> (o.status = 'refunded')::int)
ORDER BY id
"""


def signed(fingerprint: bytes) -> int:
    """Eight bytes as the `bigint` that they are stored as."""
    return int.from_bytes(fingerprint, "big", signed=True)
