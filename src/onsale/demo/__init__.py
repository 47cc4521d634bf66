"""A whole sale on one machine: the embedded stack, a demo event, a crowd, and the books."""
