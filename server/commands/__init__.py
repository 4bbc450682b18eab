"""The commands of `cloister-coordinator`, one file a group."""
