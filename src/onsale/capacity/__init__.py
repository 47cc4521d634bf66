"""What an on-sale needs and where it would break: arithmetic on what the benchmark measured.

`curve` says how a crowd arrives, `costs` what a request costs, `model` puts the two together;
`reference` reads the costs from a benchmark's JSON, `check` compares the model with a real demo.
"""
