"""Studies: what a command can do besides training one network. Each is a function named by ``study.run``."""
