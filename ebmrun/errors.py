"""The two ways in which a run can end early, and their exit statuses."""


class ConfigError(ValueError):
    """What was asked for cannot be run (exit status 2). The message names the value and the mend, in one line."""


class RunError(RuntimeError):
    """A run that was asked for rightly has failed (exit status 1). The message says where, and what to try."""


class Diverged(RunError):
    """A number of the run is no longer finite."""
