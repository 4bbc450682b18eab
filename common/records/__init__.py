"""Labelled texts from files: a hospital's private rows, or public ones of a coordinator. The one reader of records."""
