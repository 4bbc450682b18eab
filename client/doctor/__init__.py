"""`cloister-site doctor`: what can be wrong at a hospital."""
