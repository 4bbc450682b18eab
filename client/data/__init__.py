"""Patient records: the one place that reads them."""
