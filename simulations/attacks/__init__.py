"""Attacks on what Cloister promises, as scripts that run."""
