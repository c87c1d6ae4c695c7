"""Where the control socket of a home is, for the server that binds it and the client that connects.

Imports nothing heavy: the command line reads this module at every start.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET_NAME = "control.sock"
MAX_PATH_BYTES = 100
"""The kernel's own limit is 107 on Linux and 103 elsewhere."""


@contextmanager
def reachable_path(home: Path) -> Iterator[str]:
    """A path to the socket of `home` short enough for bind and connect, valid inside the `with`.

    A long one goes through an open handle of the directory. Raises OSError if that cannot be had.
    """
    path = home.absolute() / SOCKET_NAME
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        yield str(path)
        return
    handle = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET_NAME}"
    finally:
        os.close(handle)
