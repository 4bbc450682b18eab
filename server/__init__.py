"""The coordinator: rounds, aggregation of a sum and a count, checkpoints, reports."""
