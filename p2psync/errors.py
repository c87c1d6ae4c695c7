"""What a person can be told: one class per kind of failure, with the exit code the CLI returns.

Every message is a sentence: what happened, to what, and what to do next.
"""


class P2psyncError(Exception):
    """Base of every failure that is shown to a person. `str(error)` is the sentence."""

    exit_code = 1


class UsageError(P2psyncError):
    """The request itself cannot be carried out as given; nothing was changed."""

    exit_code = 2


class NotRunningError(P2psyncError):
    """The command needs the daemon, and none answers for this home."""

    exit_code = 3


class NotFoundError(P2psyncError):
    """No device, folder, conflict or path of that name."""

    exit_code = 4


class RefusedError(P2psyncError):
    """A peer or a safety rule said no: wrong code, expired code, removed device, unsafe change."""

    exit_code = 5


class TimedOutError(P2psyncError):
    """The awaited state was not reached in the time given."""

    exit_code = 6


class ConfigError(P2psyncError):
    """The config file, the home or the machine's state keeps the daemon from starting."""

    exit_code = 7


class DamagedError(P2psyncError):
    """Something stored on this device does not read back as it was written."""

    exit_code = 8
