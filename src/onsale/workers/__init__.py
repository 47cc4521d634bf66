"""The workers: each has a `run_once` that is idempotent and may run beside itself."""
