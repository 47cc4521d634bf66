"""The gate: Redis decides, for the whole crowd, whether an order may have its seats."""
