"""Listening on several addresses at one port, since discovery tells of a single one."""

import errno
import socket
from collections.abc import Sequence

from p2psync.errors import ConfigError

_TRIES = 16
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def listen_on_one_port(hosts: Sequence[str], *, port: int) -> list[socket.socket]:
    """Listening sockets on all of `hosts`, IP addresses; port 0 takes one that is free on all.

    `::` among others is left out where the machine has no IPv6. Raises ConfigError.
    """
    tries = _TRIES if port == 0 else 1
    while True:
        sockets: list[socket.socket] = []
        try:
            for host in hosts:
                # A free port of the first host may be taken on another: then all is tried again.
                taken = sockets[0].getsockname()[1] if sockets else port
                try:
                    sockets.append(_listen(host, taken))
                except OSError as error:
                    if host != "::" or len(hosts) == 1 or error.errno not in _NO_SUCH_FAMILY:
                        raise
            return sockets
        except OSError as error:
            for sock in sockets:
                sock.close()
            tries -= 1
            if not tries or error.errno != errno.EADDRINUSE:
                raise ConfigError(
                    f"Pairing cannot listen on {', '.join(hosts)}: {error.strerror or error}. "
                    "Check the addresses that this device listens on."
                ) from error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
