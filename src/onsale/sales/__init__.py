"""The use cases: what buyers and organisers do, with gate and ledger as collaborators."""
