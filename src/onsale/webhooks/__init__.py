"""Webhooks on the wire: signed as Standard Webhooks says, and sent to public addresses alone."""
