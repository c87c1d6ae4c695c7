"""Ends the daemon at a failpoint, for tests: `P2PSYNC_FAILPOINT=commit.after-swap:3` at the third
time that it is reached. Nothing gets a chance to clean up."""

import os
import signal
import threading
from collections.abc import Callable

from p2psync import failpoints
from p2psync.errors import ConfigError

VARIABLE = "P2PSYNC_FAILPOINT"


def end_where_told(told: str | None, end: Callable[[], object] | None = None) -> None:
    """`told`: what the variable holds. Raises ConfigError where that is no failpoint."""
    if not told:
        return
    name, _, times = told.partition(":")
    if name not in failpoints.NAMES or not (times or "1").isdecimal() or times == "0":
        raise ConfigError(
            f"{VARIABLE} is “{told}”, which names no failpoint; it is for tests only. Unset it."
        )
    left = int(times or 1)
    counting = threading.Lock()

    def hook(reached: str) -> None:
        nonlocal left
        if reached == name:
            # The lock is kept, so that no other thread goes past the point meanwhile.
            with counting:
                left -= 1
                if left == 0:
                    (end or _end)()

    failpoints.install(hook)


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    # It may take effect a moment later; nothing more is to happen.
    signal.pause()
