"""How long things take in a run, in ms: production's settings, nearer to each other.

What matters is the order: a picture is younger than a call may take, a call is over before the
grace period is, and a hold outlasts them. So the same things can overtake each other as in
production, and rare meetings are common.
"""

# Of 250 ms: `sale_view_age_seconds_max`.
PICTURE_AGE_MS = 250
# Of 1 s: how old an event may be that a process goes by.
EVENT_AGE_MS = 1_000
# Of 2 s and 6 s: `redis_timeout_seconds`, and the driver's limit for a statement.
GATE_TIMEOUT_MS = 600
LEDGER_TIMEOUT_MS = 1_000
PROVIDER_TIMEOUT_MS = 600
# Of 10 s: `reconciler_grace_seconds`. Longer than a statement may take.
GRACE_MS = 2_000
# Of 0.2 s: `SECOND_LOOK_SECONDS`.
SECOND_LOOK_MS = 100
# Of 10 min and more: `hold_seconds`.
HOLD_MS = 3_000
# Every try of the provider, and as long again for the ledger: `given_up_after_seconds`.
PAYMENT_GIVEN_UP_MS = 4 * PROVIDER_TIMEOUT_MS
# Of 0.5 s: `redis_rest_seconds`.
GATE_REST_MS = 300

# Faults and buyers are done with by then; what is left is for the workers.
CHAOS_MS = 8_000
