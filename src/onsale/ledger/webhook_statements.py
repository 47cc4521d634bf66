"""The statements in which webhooks are registered, claimed and settled; what is to be told is
written down by the statements that change orders (see `statements`).
"""

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
