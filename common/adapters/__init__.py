"""The small set of trained values on top of a frozen base, as vectors and as files."""
