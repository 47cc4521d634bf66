"""What an order costs, measured beside an endpoint that does nothing: `run` and `render`."""
