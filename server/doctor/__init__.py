"""`cloister-coordinator doctor`: what can be wrong at a coordinator."""
