"""The commands of `cloister-site`, one file a group."""
