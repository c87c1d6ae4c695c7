"""The view that stays."""

import io
import threading
from typing import Any

import pytest
from rich.console import Console

from p2psync.cli import live
from p2psync.cli.client import ControlClient
from p2psync.errors import NotRunningError, TimedOutError
from tests.cli.conftest import Terminal
from tests.web.fake_control import folder, peer, status

Json = dict[str, Any]


class Client(ControlClient):
    """Answers one after the other, and stops the view after the last."""

    def __init__(self, stop: threading.Event, *answers: Json | Exception) -> None:
        self._stop = stop
        self._answers = list(answers)

    def call(self, method: str, *, within_s: float = 1, **fields: object) -> Json:
        assert method == "status"
        answer = self._answers.pop(0)
        if not self._answers:
            self._stop.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    monkeypatch.setattr(live, "_LINES_S", 0)
    monkeypatch.setattr(live, "_TERMINAL_S", 0)
    return threading.Event()


def test_elsewhere_than_on_a_terminal_each_change_is_a_line(
    stop: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    before = status(folders=[folder()], devices=[peer()])
    after = status(folders=[folder(files=4)], devices=[peer()])
    live.watch(Client(stop, before, before, after), stop=stop, hint=["Hint."])
    assert capsys.readouterr().out.splitlines() == [
        "Hint.",
        "ana (abcdefg) is running",
        "Sync: idle, 3 files here, needed here: nothing, 0 conflicts, 0 problems",
        "ben (bcdefgh): connected at 192.0.2.7:4000, still needs nothing",
        "Sync: idle, 4 files here, needed here: nothing, 0 conflicts, 0 problems",
    ]


def test_json_is_a_line_for_each_change(
    stop: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    live.watch_json(Client(stop, status(), status(), status(listen=[])), stop=stop)
    assert capsys.readouterr().out.count("\n") == 2


def test_a_daemon_too_busy_to_answer_is_asked_again(
    stop: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    live.watch_json(Client(stop, TimedOutError("Busy."), status()), stop=stop)
    assert capsys.readouterr().out.count("\n") == 1


def test_a_daemon_that_is_told_to_stop_may_be_gone_first(stop: threading.Event) -> None:
    live.watch(Client(stop, NotRunningError("Gone.")), stop=stop)


def test_a_daemon_that_goes_away_by_itself_is_an_error(
    monkeypatch: pytest.MonkeyPatch, stop: threading.Event
) -> None:
    waited: list[float | None] = []

    def wait(seconds: float | None = None) -> bool:
        waited.append(seconds)
        return False

    monkeypatch.setattr(stop, "wait", wait)
    client = Client(threading.Event(), NotRunningError("Gone."))
    with pytest.raises(NotRunningError):
        live.watch(client, stop=stop)
    assert waited == [1.0]


def test_on_a_terminal_the_view_is_redrawn_in_place(
    stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    client = Client(stop, status(), status(folders=[folder(name="Photos")]))
    live.watch(client, stop=stop, hint=["Hint."])
    shown = terminal.getvalue()
    assert shown.count("Hint.") >= 2
    assert "Photos" in shown
    assert "\x1b[2K" in shown


def rendered(told: Json) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(live.render(told, hint=["[bold]Hint."]))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_view_has_what_the_plain_status_has() -> None:
    text = rendered(
        status(
            folders=[folder(), folder(name="Empty", bytes=0), folder(name="Bad", state="halted")],
            devices=[peer()],
            pairing={"expires_s": 60},
            problems=[{"path": "", "reason": "The disk is full.", "next_step": "Free some."}],
        )
    )
    for words in ("ana (abcdefg)", "2.0 KiB here, to fetch: nothing", "Empty", "halted", "ben"):
        assert words in text
    for words in ("open for another 60 s", "→ Free some.", "[bold]Hint.", "Ctrl-C"):
        assert words in text


def test_markup_in_a_name_is_text() -> None:
    assert "[red]x[/red]" in rendered(status(folders=[folder(name="[red]x[/red]")]))


def test_a_view_of_nothing_says_what_to_do() -> None:
    assert "Share one with `p2psync folder add PATH`." in rendered(status())
