"""Running the daemon in this process, with something beside it that talks to it as a client."""

import asyncio
import gc
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from p2psync.cli.client import ControlClient
from p2psync.cli.home import load_or_create
from p2psync.cli.terminal import say
from p2psync.cli.text import shown
from p2psync.config import Config, LogLevel
from p2psync.errors import ConfigError, P2psyncError

_LOG_NAME = "daemon.log"
_MAX_LOG = 4 * 1024 * 1024


def run_daemon(home: Path, *, verbose: bool) -> None:
    """The verb `daemon`: run it in the foreground until it is interrupted."""
    config = load_or_create(home)
    if verbose:
        config = replace(config, log_level=LogLevel.DEBUG)
    client = ControlClient(home)

    def announce(_: threading.Event) -> None:
        try:
            status = client.call("status")
        except P2psyncError:
            # Being told to stop already, or too busy to answer: no reason to end the daemon.
            return
        addresses = ", ".join(status["listen"]) or "no address"
        say(f"p2psync is running as {status['device']['name']}, listening on {addresses}.")

    run_daemon_with(home, config, log=terminal_log(), beside=announce)


def run_daemon_with(
    home: Path, config: Config, *, log: logging.Handler, beside: Callable[[threading.Event], None]
) -> None:
    """Serve `home` until SIGINT, SIGTERM or a shutdown request; a second signal ends it at once.

    `beside` runs in a thread from the moment the daemon answers and returns soon after the event it
    is given is set. `log` is closed in the end. Raises what the daemon or `beside` raises.
    """
    try:
        with _logging_to(log, config.log_level):
            asyncio.run(_serve(home, config, beside))
    except asyncio.CancelledError:
        return
    except BaseExceptionGroup as group:
        raise _first_cause(group) from None


async def _serve(home: Path, config: Config, beside: Callable[[threading.Event], None]) -> None:
    # What a start makes stays. The daemon has garbage collected again when it runs.
    gc.disable()
    try:
        await _serve_beside(home, config, beside)
    finally:
        gc.enable()


async def _serve_beside(
    home: Path, config: Config, beside: Callable[[threading.Event], None]
) -> None:
    from p2psync.daemon import serve

    ready, stop = asyncio.Event(), threading.Event()
    _cancel_on_signal(asyncio.current_task(), stop)

    async def accompany() -> None:
        await ready.wait()
        await asyncio.to_thread(beside, stop)

    async with asyncio.TaskGroup() as tasks:
        # Ends when it is told what to show, when the daemon ends, or with the group.
        companion = tasks.create_task(accompany())
        try:
            await serve(home, config=config, ready=ready.set)
        finally:
            stop.set()
            if not ready.is_set():
                companion.cancel()


def _cancel_on_signal(task: asyncio.Task[None] | None, stop: threading.Event) -> None:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def end() -> None:
        for number in signals:
            loop.remove_signal_handler(number)
        stop.set()
        if task is not None:
            task.cancel()

    for number in signals:
        loop.add_signal_handler(number, end)


def _first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to report: one that is a sentence for people if there is any."""
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop(0)
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions
        else:
            leaves.append(error)
    return next((leaf for leaf in leaves if isinstance(leaf, P2psyncError)), leaves[0])


def terminal_log() -> logging.Handler:
    """The daemon's log on standard error."""
    return logging.StreamHandler(sys.stderr)


def file_log(home: Path) -> logging.Handler:
    """The daemon's log in a file of bounded size in `home`. Raises ConfigError."""
    from logging.handlers import RotatingFileHandler

    path = home / _LOG_NAME
    try:
        handler = RotatingFileHandler(path, maxBytes=_MAX_LOG, backupCount=1, encoding="utf-8")
        path.chmod(0o600)
    except OSError as error:
        raise ConfigError(f"The log {path} cannot be written: {error.strerror}.") from error
    return handler


@contextmanager
def _logging_to(handler: logging.Handler, level: LogLevel) -> Iterator[None]:
    """Our own log at `level`, that of the libraries from warnings on."""
    handler.setFormatter(_HarmlessFormatter("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("p2psync")
    ours.setLevel(level.upper())
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        ours.setLevel(logging.NOTSET)
        handler.close()


class _HarmlessFormatter(logging.Formatter):
    """Escapes whatever a peer's words could do to the terminal that shows the log."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        # A message is one line: what a peer says must not pass for another.
        record.message = shown(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(shown, super().format(record).split("\n")))
