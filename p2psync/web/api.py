"""The control API: what a daemon can be asked to do, and the HTTP server that passes it on.

One request is `POST /METHOD` on the Unix socket of the home, with a JSON object of the method's
keyword arguments; the answer is a JSON object. The signatures of `Control` are the schema: a field
that is missing, unknown or of another type is refused before the daemon sees it.
"""

import asyncio
import inspect
import json
import logging
import os
import socket
import stat
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from p2psync.errors import ConfigError, P2psyncError, UsageError
from p2psync.web.control_socket import SOCKET_NAME, reachable_path
from p2psync.web.http import Request, Response, serve_connection

Json = dict[str, Any]

_MAX_BODY = 1024 * 1024
_GRACE_S = 1.0
"""How long requests under way may still take when the server stops; a long poll is cut off then."""

_log = logging.getLogger(__name__)


class Control(Protocol):
    """What the command line and the page may ask of a daemon. Any method may raise P2psyncError."""

    async def status(self) -> Json: ...

    async def wait(self, *, timeout: float | None = None) -> Json: ...  # noqa: ASYNC109 - a field of the API

    async def pair_new(self, *, key: str | None = None) -> Json: ...

    async def pair_result(self, *, timeout: float) -> Json: ...  # noqa: ASYNC109 - a field of the API

    async def pair_cancel(self) -> Json: ...

    async def pair_join(
        self, *, code: str | None = None, key: str | None = None, address: str | None = None
    ) -> Json: ...

    async def device_rename(self, *, device: str, name: str) -> Json: ...

    async def device_remove(self, *, device: str, dry_run: bool = False) -> Json: ...

    async def folder_add(
        self,
        *,
        path: str,
        name: str | None = None,
        mode: str = "send-receive",
        with_devices: list[str] | None = None,
        dry_run: bool = False,
    ) -> Json: ...

    async def folder_remove(self, *, name: str, dry_run: bool = False) -> Json: ...

    async def folder_pause(self, *, name: str) -> Json: ...

    async def folder_resume(self, *, name: str) -> Json: ...

    async def folder_rescan(self, *, name: str) -> Json: ...

    async def verify(self, *, name: str | None = None, rate: float | None = None) -> Json: ...

    async def approve(self, *, name: str) -> Json: ...

    async def conflicts_list(self) -> Json: ...

    async def conflicts_keep(self, *, path: str) -> Json: ...

    async def doctor(self) -> Json: ...

    async def shutdown(self) -> Json: ...


def _request_types() -> dict[str, type[msgspec.Struct]]:
    """For each method of `Control`, a struct of its keyword arguments."""
    types = {}
    for method, function in vars(Control).items():
        if method.startswith("_") or not inspect.iscoroutinefunction(function):
            continue
        parameters = list(inspect.signature(function).parameters.values())[1:]
        fields = [
            (one.name, one.annotation)
            if one.default is one.empty
            else (one.name, one.annotation, one.default)
            for one in parameters
        ]
        types[method] = msgspec.defstruct(method, fields, kw_only=True, forbid_unknown_fields=True)
    return types


_REQUEST_TYPES = _request_types()


class ControlServer:
    """Serves `control` on the Unix socket of `home`, mode 0600: `start`/`stop` or `async with`."""

    def __init__(self, control: Control, home: Path) -> None:
        self._control = control
        self._home = home
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._bound: tuple[int, int] | None = None

    async def start(self) -> None:
        """Bind and serve. A stale socket file is replaced.

        Raises ConfigError if another daemon answers on the socket or it cannot be made.
        """
        listener, self._bound = await asyncio.to_thread(_bind, self._home)
        try:
            self._server = await asyncio.start_unix_server(self._connected, sock=listener)
        except BaseException:
            listener.close()
            await self.stop()
            raise

    async def stop(self) -> None:
        """Answer what is under way, for a second at most, then close and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._connections:
            _, late = await asyncio.wait(self._connections, timeout=_GRACE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._bound is not None:
            await asyncio.to_thread(_remove, self._home, self._bound)
            self._bound = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = serve_connection(reader, writer, self._answer, max_body=_MAX_BODY)
        # Ends with the answer, or with `stop`.
        task = asyncio.create_task(serving, name="control")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _answer(self, request: Request) -> Response:
        method = request.path.removeprefix("/")
        try:
            if request.verb != "POST":
                return _failure(UsageError("The control API takes POST alone."), status=405)
            if "/" in method or not request.path.startswith("/"):
                return _failure(UsageError(f"There is nothing at {request.path}."), status=404)
            if request.body is None:
                return _failure(UsageError("The request is too long."), status=413)
            arguments = _read_arguments(method, request.body)
            return _json(await getattr(self._control, method)(**arguments), status=200)
        except P2psyncError as error:
            return _failure(error, status=400)
        except Exception:
            _log.exception("control request failed method=%s", method)
            sentence = f"The daemon failed at “{method}” in a way it should not; its log says more."
            return _failure(P2psyncError(sentence), status=500)


def _read_arguments(method: str, body: bytes) -> Json:
    """The checked keyword arguments for `method`. Raises UsageError."""
    request_type = _REQUEST_TYPES.get(method)
    if request_type is None:
        raise UsageError(
            f"The running daemon does not know “{method}”: it is another version. "
            "Restart the daemon."
        )
    try:
        # The standard decoder, because paths that are not UTF-8 travel as lone surrogates.
        fields = json.loads(body or b"{}")
        request = msgspec.convert(fields, request_type)
    except (ValueError, RecursionError) as error:
        sentence = f"The daemon does not understand this “{method}” request: {error}."
        raise UsageError(sentence) from None
    return {name: getattr(request, name) for name in request_type.__struct_fields__}


def _failure(error: P2psyncError, *, status: int) -> Response:
    known = next(cls for cls in type(error).__mro__ if cls.__module__ == P2psyncError.__module__)
    body = {"kind": known.__name__, "message": str(error), "exit_code": error.exit_code}
    return _json({"error": body}, status=status)


def _json(value: Json, *, status: int) -> Response:
    body = json.dumps(value, separators=(",", ":")).encode("ascii")
    return Response(status, body)


def _bind(home: Path) -> tuple[socket.socket, tuple[int, int]]:
    """A bound socket, not yet listening, and the (device, inode) of its file."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with reachable_path(home) as path:
            _clear_the_way(path, home)
            # On Linux the file takes over the mode of the socket, so it is never open to others.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(path)
            os.chmod(path, 0o600, follow_symlinks=True)
            made = os.stat(path)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"The control socket in {home} cannot be made ({error.strerror}); "
            "check the permissions of that directory."
        ) from error
    except BaseException:
        listener.close()
        raise
    return listener, (made.st_dev, made.st_ino)


def _clear_the_way(path: str, home: Path) -> None:
    """Remove a socket file nobody answers on. Raises ConfigError if somebody does."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{home / SOCKET_NAME} is in the way of the control socket; move it.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            pass
        except TimeoutError:
            sentence = f"Another daemon holds {home} but does not answer; end it first."
            raise ConfigError(sentence) from None
        else:
            raise ConfigError(f"Another daemon is already running for {home}.")
    os.unlink(path)


def _remove(home: Path, bound: tuple[int, int]) -> None:
    """Remove the socket file if it is still the one that was bound."""
    try:
        with reachable_path(home) as path:
            found = os.lstat(path)
            if (found.st_dev, found.st_ino) == bound:
                os.unlink(path)
    except OSError as error:
        _log.debug("control socket left behind reason=%s", error)
