"""What hospitals and the coordinator must agree on; imports neither."""
