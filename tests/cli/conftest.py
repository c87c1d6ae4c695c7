"""The command line in this process, against a fake daemon behind a real control socket."""

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from p2psync.cli.main import main
from p2psync.web.api import ControlServer
from tests.web.fake_control import FakeControl


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one line of JSON that was printed."""
        assert self.out.count("\n") == 1, self
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The one line that was printed on standard error."""
        assert self.err.count("\n") == 1, self
        return self.err.removesuffix("\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class CommandLine:
    """Runs `p2psync` with arguments, in `directory`, for `home`."""

    def __init__(
        self, home: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
    ) -> None:
        self.home = home
        self._capsys = capsys
        self._patch = patch

    def __call__(
        self, *arguments: str | Path, stdin: str = "", at_terminal: bool = False
    ) -> Result:
        self._patch.setattr("sys.stdin", (Terminal if at_terminal else io.StringIO)(stdin))
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = self._capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return Result(code, said.out, said.err)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing of the user's own is touched, and no logger keeps a level."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("P2PSYNC_HOME", str(tmp_path / "home"))
    for name in ("XDG_STATE_HOME", "COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    assert not [one for one in logging.getLogger().handlers if type(one).__module__ == "logging"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the home is or will be made."""
    return tmp_path / "home"


@pytest.fixture
def cli(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    return CommandLine(home, capsys, monkeypatch)


@pytest.fixture
def control(home: Path) -> Iterator[FakeControl]:
    """A running daemon for `home` that answers as the test says."""
    home.mkdir(mode=0o700)
    fake = FakeControl()
    started, ended = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with ControlServer(fake, home):
            started.set()
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert started.wait(10)
        yield fake
    finally:
        loops[0].call_soon_threadsafe(ended.set)
        thread.join(10)
    assert not thread.is_alive()
