"""The sale's protocol as state machines under a seeded scheduler: thousands of runs a minute.

What runs here is a model: the same steps in the same order under the same names as in
`onsale.sales` and `onsale.workers`, against a gate that is the domain's reference model and a
ledger whose statements are atomic functions over a dictionary. Nothing waits for anything real, so
a run of virtual seconds takes milliseconds, and all that chance decides comes from one seed:

    uv run python -m tests.simulation                 some thousand seeds; the first bad one is told
    uv run python -m tests.simulation --seed 42       that run again, step by step

Read it in this order:

    timing      how long things take, and how that follows production
    scheduler   virtual time, hosts that crash and sleep, work as generators of steps
    network     a message, and everything that can become of it
    gate, ledger, provider                    the servers: each method is one atomic step of a store
    process, sale                             one process: its connections, its picture of the sale
    placing, ending, paying, loading, organising, workers            the protocol itself
    clients, faults, plan                     who presses what when, and what goes wrong meanwhile
    history, invariants                       what was seen, and the rules that it is held against
    planted                                   protocol bugs: each must be found by the rule it names
    model                                     one seed from beginning to end
"""
