"""Server rules: from a sum and a count of updates to the next global model."""
