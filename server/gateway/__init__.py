"""The coordinator's one door to the network."""
