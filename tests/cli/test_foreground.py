"""The daemon in this process, with something beside it: how both end, and what the log shows."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

import pytest

from p2psync.cli.foreground import file_log, run_daemon_with
from p2psync.config import Config, LogLevel
from p2psync.errors import ConfigError, NotRunningError, RefusedError

Ready = Callable[[], None]


class Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.closed = False

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def close(self) -> None:
        self.closed = True
        super().close()


class World:
    """A daemon that does what the test says."""

    def __init__(self, home: Path, patch: pytest.MonkeyPatch) -> None:
        self._home = home
        self._patch = patch
        self.log = Log()
        self.accompanied = 0

    def run(
        self,
        work: Callable[[Ready], Awaitable[None]],
        *,
        beside: Callable[[], None] = lambda: None,
        level: LogLevel = LogLevel.INFO,
    ) -> None:
        async def serve(home: Path, *, config: Config, ready: Ready) -> None:
            assert home == self._home
            assert not gc.isenabled(), "a start leaves nothing to collect"
            await work(ready)

        def accompany(stop: threading.Event) -> None:
            self.accompanied += 1
            beside()
            assert stop.wait(5)

        daemon = ModuleType("p2psync.daemon")
        vars(daemon)["serve"] = serve
        self._patch.setitem(sys.modules, "p2psync.daemon", daemon)
        try:
            run_daemon_with(self._home, Config(log_level=level), log=self.log, beside=accompany)
        finally:
            assert gc.isenabled(), "however it ended"


@pytest.fixture
def world(home: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(home, monkeypatch)


async def _forever(ready: Ready) -> None:
    ready()
    await asyncio.Event().wait()


async def _shut_down(ready: Ready) -> None:
    ready()


def test_a_daemon_that_is_shut_down_ends_what_is_beside_it(world: World) -> None:
    world.run(_shut_down)
    assert world.accompanied == 1
    assert world.log.closed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both_in_peace(world: World, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    world.run(_forever, beside=lambda: os.kill(os.getpid(), number))
    assert world.accompanied == 1
    assert signal.getsignal(number) == before


def test_a_daemon_that_cannot_start_says_why_and_nothing_is_beside_it(world: World) -> None:
    async def fail(ready: Ready) -> None:
        raise ConfigError("The port is taken.")

    with pytest.raises(ConfigError, match="The port is taken"):
        world.run(fail)
    assert world.accompanied == 0
    assert world.log.closed


def test_a_failure_beside_the_daemon_ends_it(world: World) -> None:
    def fail() -> None:
        raise RefusedError("The folder cannot be shared.")

    with pytest.raises(RefusedError, match="cannot be shared"):
        world.run(_forever, beside=fail)


def test_of_several_failures_one_that_is_a_sentence_is_told(world: World) -> None:
    async def fail(ready: Ready) -> None:
        raise ExceptionGroup("", [ValueError("x"), ExceptionGroup("", [NotRunningError("Gone.")])])

    with pytest.raises(NotRunningError, match="Gone"):
        world.run(fail)


def test_a_failure_that_is_none_is_told_as_it_is(world: World) -> None:
    async def fail(ready: Ready) -> None:
        raise ExceptionGroup("", [ValueError("first"), KeyError("second")])

    with pytest.raises(ValueError, match="first"):
        world.run(fail)


def test_the_log_is_at_the_level_that_is_set_and_harmless(world: World) -> None:
    async def talk(ready: Ready) -> None:
        logging.getLogger("p2psync.net").info("hello\x1b[2J %s", "ben\nbob")
        logging.getLogger("p2psync.net").debug("too much")
        logging.getLogger("library").info("too much")
        logging.getLogger("library").warning("beware")

    world.run(talk)
    assert [line.partition(" INFO ")[2] or line for line in world.log.lines[:1]] == [
        "hello\\x1b[2J ben\\nbob"
    ]
    assert world.log.lines[1].endswith("WARNING beware")
    assert len(world.log.lines) == 2
    world.run(talk, level=LogLevel.DEBUG)
    assert len(world.log.lines) == 5


def test_the_log_file_is_private_and_in_the_home(home: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        file_log(home)
    home.mkdir()
    file_log(home).close()
    assert (home / "daemon.log").stat().st_mode & 0o777 == 0o600
