"""What a sale is, without any I/O: read this room first.

`event`, `tier`, `order` and `payment` hold the nouns, `errors` the ways a request is refused,
`ids` how order ids come about, and `inventory` the reference model that the gate's scripts are
held against.
"""
