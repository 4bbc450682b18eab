"""Inside the hospital: records, training, noise, and the one exit for replies."""
