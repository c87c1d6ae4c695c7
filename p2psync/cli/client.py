"""Asking the daemon of a home: blocking HTTP over its Unix socket.

Blocking and from the standard library alone, because a command has to start fast.
"""

import http.client
import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from p2psync import errors
from p2psync.errors import (
    NotRunningError,
    P2psyncError,
    RefusedError,
    TimedOutError,
)
from p2psync.web.control_socket import reachable_path

Json = dict[str, Any]

_CONNECT_S = 5.0
_ANSWER_S = 60.0
_MAX_ANSWER = 256 * 1024 * 1024


class ControlClient:
    """Calls the control API of the daemon that runs for `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def call(self, method: str, *, within_s: float = _ANSWER_S, **fields: object) -> Json:
        """The answer of control method `method`, called with `fields`.

        Raises NotRunningError if no daemon answers, TimedOutError if its answer takes longer than
        `within_s`, and whatever P2psyncError the daemon raised.
        """
        body = json.dumps(fields).encode("ascii")
        connection = _SocketConnection(self.home, timeout=within_s)
        try:
            status, answer = self._exchange(connection, method, body)
        except TimeoutError:
            raise TimedOutError(
                f"The daemon for {self.home} did not answer within {within_s:.0f} s; "
                "look at its output, and restart it if it hangs."
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise NotRunningError(
                f"The daemon for {self.home} stopped before it answered. "
                "Look at its output, then start it again with `p2psync daemon` or `p2psync up`."
            ) from error
        finally:
            connection.close()
        return _read_answer(status, answer)

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, body: bytes
    ) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.connect()
        # A server that has read enough answers and hangs up; what it said can still be read.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", f"/{method}", body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(_MAX_ANSWER)

    def is_running(self) -> bool:
        """Whether a daemon answers for this home."""
        try:
            self.call("status")
        except NotRunningError:
            return False
        return True


class _SocketConnection(http.client.HTTPConnection):
    """HTTP to the control socket of a home."""

    def __init__(self, home: Path, *, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._home = home
        self._answer_s = timeout

    def connect(self) -> None:
        """Raises NotRunningError, RefusedError or TimeoutError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_CONNECT_S)
        try:
            with reachable_path(self._home) as path:
                self.sock.connect(path)
        except TimeoutError:
            raise
        except PermissionError:
            raise RefusedError(
                f"The home {self._home} belongs to another user; choose your own with --home."
            ) from None
        except OSError:
            raise NotRunningError(
                f"The daemon is not running for {self._home}. "
                "Start it with `p2psync daemon` or `p2psync up`."
            ) from None
        self.sock.settimeout(self._answer_s)


def _read_answer(status: int, body: bytes) -> Json:
    try:
        answer = json.loads(body)
        if status == http.client.OK and isinstance(answer, dict):
            return answer
        failure = answer["error"]
        kind = getattr(errors, failure["kind"], P2psyncError)
        error: P2psyncError = kind(failure["message"])
        error.exit_code = failure["exit_code"]
    except (ValueError, TypeError, LookupError):
        raise P2psyncError(
            f"The daemon's answer cannot be read (HTTP status {status}); "
            "it may be another version, so restart it."
        ) from None
    raise error
