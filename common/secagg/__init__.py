"""Secure aggregation: what both sides must agree on, in plain NumPy and `cryptography`."""
