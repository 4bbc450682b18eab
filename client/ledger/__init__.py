"""The hospital's own book of privacy: what it allows, what was spent on what, and what is left."""
