"""The statements in which an order changes, each one transaction of its own.

They lock in one order, so that no two can wait for each other: orders by (event, id), then tiers by
(event, number). `first commit wins` is a `WHERE status = …`. What is to be told of a change is
written down with it.
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
), {_told("placed")}
SELECT now() AS placed_at, (SELECT array_agg(id) FROM placed) AS placed_ids
"""

# What follows from the CTE `ended (event_id, id, status, was_confirmed)`: its units go back to
# their tiers.
_UNITS_BACK = f"""
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
), {_told("ended")}
SELECT event_id, id FROM ended
"""

# $1 event, $2 order, $3 buyer. A row when the hold was released here and now.
RELEASE = f"""
WITH ended AS (
    UPDATE orders SET status = 'released', ended_at = now()
    WHERE event_id = $1 AND id = $2 AND buyer_id = $3 AND status = 'held' AND expires_at > now()
    RETURNING event_id, id, status, false AS was_confirmed
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
    RETURNING orders.event_id, orders.id, orders.status, false AS was_confirmed
), {_UNITS_BACK}
"""

# $1 event, $2 order. A row when the order was refunded here and now; its money follows through
# the outbox.
REFUND = f"""
WITH ended AS (
    UPDATE orders SET status = 'refunded', ended_at = now()
    WHERE event_id = $1 AND id = $2 AND status = 'confirmed'
    RETURNING event_id, id, status, true AS was_confirmed
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
CONFIRM = f"""
WITH confirmed AS (
    UPDATE orders SET status = 'confirmed', confirmed_at = now(), expires_at = NULL
    WHERE event_id = $1 AND id = $2 AND status = 'held' AND expires_at > now()
      AND EXISTS (SELECT FROM payments
                  WHERE event_id = $1 AND order_id = $2 AND attempt = $3 AND state = 'started')
    RETURNING event_id, id, status, created_at
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
), {_told("confirmed")}
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

# -- webhooks

_ENDPOINT = "e.id, e.url, e.statuses::text[], e.created_at, e.disabled_at"

# $1 url, $2 secret, $3 statuses, $4 most endpoints. A row unless there are that many.
REGISTER_ENDPOINT = f"""
INSERT INTO webhook_endpoints AS e (url, secret, statuses)
SELECT $1::text, $2::text, $3::text[]::order_status[]
WHERE (SELECT count(*) FROM webhook_endpoints) < $4
RETURNING {_ENDPOINT}
"""

READ_ENDPOINTS = f"SELECT {_ENDPOINT} FROM webhook_endpoints AS e ORDER BY e.id DESC"

# $1 endpoint. A row when it was there.
REMOVE_ENDPOINT = "DELETE FROM webhook_endpoints WHERE id = $1 RETURNING id"

# $1 endpoint.
DISABLE_ENDPOINT = """
UPDATE webhook_endpoints SET disabled_at = now() WHERE id = $1 AND disabled_at IS NULL
"""

# $1 endpoint. A row when it is there; its messages that wait are due as they were.
ENABLE_ENDPOINT = f"""
UPDATE webhook_endpoints AS e SET disabled_at = NULL WHERE id = $1 RETURNING {_ENDPOINT}
"""

# Endpoints with messages due, and for how long the first of them has been. One look at the index
# for each endpoint, however many wait.
ENDPOINTS_DUE = """
SELECT e.id, e.url, e.secret,
       extract(epoch FROM now() - first.next_attempt_at)::float8 AS overdue_seconds
FROM webhook_endpoints AS e CROSS JOIN LATERAL (
    SELECT next_attempt_at FROM webhook_deliveries
    WHERE endpoint_id = e.id AND state = 'pending'
    ORDER BY next_attempt_at LIMIT 1
) AS first
WHERE e.disabled_at IS NULL AND first.next_attempt_at <= now()
"""

# $1 endpoint, $2 most messages, $3 seconds until each is due again unless it is settled. Two
# workers share the work. An order is as it was when it entered the status: nothing else of it ever
# changes, so every attempt sends the same bytes and none had to be stored.
CLAIM_DELIVERIES = """
WITH due AS (
    SELECT event_id, order_id, status, endpoint_id FROM webhook_deliveries
    WHERE endpoint_id = $1 AND state = 'pending' AND next_attempt_at <= now()
      AND EXISTS (SELECT FROM webhook_endpoints WHERE id = $1 AND disabled_at IS NULL)
    ORDER BY next_attempt_at LIMIT $2 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE webhook_deliveries AS d
    SET attempts = d.attempts + 1, next_attempt_at = now() + make_interval(secs => $3)
    FROM due
    WHERE d.event_id = due.event_id AND d.order_id = due.order_id AND d.status = due.status
      AND d.endpoint_id = due.endpoint_id
    RETURNING d.id, d.event_id, d.order_id, d.status, d.attempts, d.created_at
)
SELECT c.id AS delivery_id, c.attempts, c.created_at AS changed_at, now() AS claimed_at,
       o.event_id, o.id, o.buyer_id, c.status::text, o.fingerprint, o.amount_minor_units,
       e.currency, o.created_at,
       CASE WHEN c.status = 'held'
            THEN o.created_at + make_interval(secs => e.hold_seconds) END AS expires_at,
       ARRAY(SELECT ARRAY[tier_number, quantity] FROM order_items i
             WHERE i.event_id = o.event_id AND i.order_id = o.id ORDER BY tier_number) AS items
FROM claimed c
JOIN orders o ON o.event_id = c.event_id AND o.id = c.order_id
JOIN events e ON e.id = c.event_id
"""

# $1 messages.
MARK_DELIVERED = """
WITH delivered AS (
    SELECT id FROM webhook_deliveries WHERE id = ANY ($1::uuid[]) AND state = 'pending'
    ORDER BY id FOR UPDATE
)
UPDATE webhook_deliveries AS d SET state = 'delivered', ended_at = now(), last_error = NULL
FROM delivered WHERE d.id = delivered.id AND d.state = 'pending'
"""

# $1 message, $2 the attempt that failed, $3 why, $4 seconds until the next one, or NULL when that
# was the last. A later attempt is not touched by what an earlier one comes back with.
MARK_FAILED = """
UPDATE webhook_deliveries
SET last_error = $3, next_attempt_at = now() + make_interval(secs => coalesce($4::float8, 0)),
    state = (CASE WHEN $4 IS NULL THEN 'dead' ELSE 'pending' END)::delivery_state,
    ended_at = CASE WHEN $4 IS NULL THEN now() END
WHERE id = $1 AND state = 'pending' AND attempts = $2
"""

_DELIVERY = """
SELECT d.id, d.endpoint_id, d.event_id, d.order_id, d.status::text, d.state::text, d.attempts,
       d.created_at, d.next_attempt_at, d.ended_at, d.last_error, e.disabled_at
FROM webhook_deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id
"""

# $1 message.
READ_DELIVERY = f"{_DELIVERY} WHERE d.id = $1"


def deliveries_page(state: str | None) -> str:
    """$1 id of the message before which the page begins, $2 most messages. Newest first.

    The state is of the text: as a parameter it could not choose the index.
    """
    of_state = f"AND d.state = '{state}'" if state else ""
    return f"{_DELIVERY} WHERE d.id < $1 {of_state} ORDER BY d.id DESC LIMIT $2"


# $1 message. A row when it is there, at an endpoint that takes messages: due now, and with all its
# attempts before it.
RESEND = """
UPDATE webhook_deliveries AS d
SET state = 'pending', ended_at = NULL, attempts = 0, next_attempt_at = now()
FROM webhook_endpoints AS e
WHERE d.id = $1 AND e.id = d.endpoint_id AND e.disabled_at IS NULL
RETURNING d.id
"""

# Messages that wait, and dead ones, at endpoints that take messages.
COUNT_UNDELIVERED = """
SELECT count(*) FILTER (WHERE state = 'pending') AS pending,
       count(*) FILTER (WHERE state = 'dead') AS dead
FROM webhook_deliveries JOIN webhook_endpoints AS e ON e.id = endpoint_id
WHERE state <> 'delivered' AND disabled_at IS NULL
"""

# $1 days, $2 most messages. Ids begin with the time of their making.
PURGE_DELIVERIES = """
DELETE FROM webhook_deliveries WHERE id IN (
    SELECT id FROM webhook_deliveries
    WHERE id < (SELECT uuidv7(make_interval(days => -$1::int)))
    ORDER BY id LIMIT $2
)
"""
