"""The ledger: Postgres remembers every event, order and payment, and arbitrates every change."""
