"""Payment: what the sale asks of a provider, and the simulated one."""
