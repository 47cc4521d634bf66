"""The statements in which an order changes, each one transaction of its own.

They lock in one order, so that no two can wait for each other: orders by (event, id), then tiers by
(event, number). `first commit wins` is a `WHERE status = …`.
"""

# $1–$7: orders as parallel arrays (event, id, buyer, status, fingerprint, amount, hold seconds);
# $8–$11: their items (event, order, tier, quantity).
# Returns the ledger's time and the ids that are new here; the others were here already.
PLACE = """
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
    RETURNING event_id, id, status
), items AS (
    INSERT INTO order_items (event_id, order_id, tier_number, quantity)
    SELECT i.event_id, i.order_id, i.tier_number, i.quantity
    FROM unnest($8::uuid[], $9::uuid[], $10::smallint[], $11::smallint[])
        AS i (event_id, order_id, tier_number, quantity)
    JOIN placed ON placed.event_id = i.event_id AND placed.id = i.order_id
    RETURNING event_id, order_id, tier_number, quantity
), units AS (
    SELECT items.event_id, tier_number, sum(quantity) AS reserved,
           coalesce(sum(quantity) FILTER (WHERE status = 'confirmed'), 0) AS sold
    FROM items JOIN placed ON placed.event_id = items.event_id AND placed.id = items.order_id
    GROUP BY items.event_id, tier_number
), locked AS (
    SELECT tiers.event_id, number, units.reserved, units.sold
    FROM tiers JOIN units ON units.event_id = tiers.event_id AND tier_number = number
    ORDER BY tiers.event_id, number FOR NO KEY UPDATE OF tiers
), counted AS (
    UPDATE tiers SET reserved = tiers.reserved + locked.reserved, sold = tiers.sold + locked.sold
    FROM locked WHERE tiers.event_id = locked.event_id AND tiers.number = locked.number
)
SELECT now() AS placed_at, (SELECT array_agg(id) FROM placed) AS placed_ids
"""

# What follows from the CTE `ended (event_id, id, was_confirmed)`: its units go back to their tiers.
_UNITS_BACK = """
units AS (
    SELECT items.event_id, tier_number, sum(quantity) AS reserved,
           coalesce(sum(quantity) FILTER (WHERE was_confirmed), 0) AS sold
    FROM order_items AS items
    JOIN ended ON ended.event_id = items.event_id AND ended.id = items.order_id
    GROUP BY items.event_id, tier_number
), locked AS (
    SELECT tiers.event_id, number, units.reserved, units.sold
    FROM tiers JOIN units ON units.event_id = tiers.event_id AND tier_number = number
    ORDER BY tiers.event_id, number FOR NO KEY UPDATE OF tiers
), counted AS (
    UPDATE tiers SET reserved = tiers.reserved - locked.reserved, sold = tiers.sold - locked.sold
    FROM locked WHERE tiers.event_id = locked.event_id AND tiers.number = locked.number
)
SELECT event_id, id FROM ended
"""

# $1 event, $2 order, $3 buyer. A row when the hold was released here and now.
RELEASE = f"""
WITH ended AS (
    UPDATE orders SET status = 'released', ended_at = now()
    WHERE event_id = $1 AND id = $2 AND buyer_id = $3 AND status = 'held' AND expires_at > now()
    RETURNING event_id, id, false AS was_confirmed
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
    RETURNING orders.event_id, orders.id, false AS was_confirmed
), {_UNITS_BACK}
"""

# $1 event, $2 order. A row when the order was refunded here and now; its money follows through
# the outbox.
REFUND = f"""
WITH ended AS (
    UPDATE orders SET status = 'refunded', ended_at = now()
    WHERE event_id = $1 AND id = $2 AND status = 'confirmed'
    RETURNING event_id, id, true AS was_confirmed
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

# $1 event, $2 order, $3 buyer, $4 method, $5 most attempts. A row with the attempt to make when the
# order is payable, no other attempt is under way and not too many were made; written down before
# the provider hears of it, so that a crash leaves nothing that nobody knows of.
BEGIN_PAYMENT = """
INSERT INTO payments (event_id, order_id, attempt, method, amount_minor_units, state)
SELECT event_id, id,
       (SELECT coalesce(max(attempt), 0) + 1 FROM payments WHERE event_id = $1 AND order_id = $2),
       $4, amount_minor_units, 'started'
FROM orders
WHERE event_id = $1 AND id = $2 AND buyer_id = $3 AND status = 'held' AND expires_at > now()
  AND (SELECT count(*) FROM payments WHERE event_id = $1 AND order_id = $2) < $5
ON CONFLICT DO NOTHING
RETURNING attempt
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

# $1 event, $2 order, $3 attempt. A row when this payment confirmed the order: seconds since the
# hold. The payment is authorised in the same step, or else is to be let go.
CONFIRM = """
WITH confirmed AS (
    UPDATE orders SET status = 'confirmed', confirmed_at = now(), expires_at = NULL
    WHERE event_id = $1 AND id = $2 AND status = 'held' AND expires_at > now()
      AND EXISTS (SELECT FROM payments
                  WHERE event_id = $1 AND order_id = $2 AND attempt = $3 AND state = 'started')
    RETURNING event_id, id, created_at
), paid AS (
    UPDATE payments SET changed_at = now(),
        state = (CASE WHEN EXISTS (SELECT FROM confirmed)
                      THEN 'authorized' ELSE 'void_due' END)::payment_state
    WHERE event_id = $1 AND order_id = $2 AND attempt = $3 AND state = 'started'
), units AS (
    SELECT tier_number, quantity FROM order_items
    JOIN confirmed ON confirmed.event_id = order_items.event_id AND confirmed.id = order_id
), locked AS (
    SELECT number, quantity FROM tiers JOIN units ON tier_number = number
    WHERE event_id = $1 ORDER BY number FOR NO KEY UPDATE OF tiers
), counted AS (
    UPDATE tiers SET sold = sold + quantity
    FROM locked WHERE tiers.event_id = $1 AND tiers.number = locked.number
)
SELECT extract(epoch FROM now() - created_at)::float8 AS held_seconds FROM confirmed
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

# $1 event, $2 most orders, $3 id after which the chunk begins.
READ_LIVE_AFTER = f"""
{_READ} WHERE o.event_id = $1 AND o.id > $3::uuid AND o.status IN ('held', 'confirmed')
ORDER BY o.id LIMIT $2
"""

# $1 event, $2 units. Buyers whose live orders come to more.
BUYERS_ABOVE = """
SELECT buyer_id, sum(quantity)::int AS units
FROM orders o JOIN order_items i ON i.event_id = o.event_id AND i.order_id = o.id
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
