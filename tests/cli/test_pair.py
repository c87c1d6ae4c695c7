"""`pair new` and `pair join`."""

from pathlib import Path
from typing import Any

import pytest

from p2psync.cli import pair
from p2psync.errors import RefusedError
from tests.cli.conftest import CommandLine
from tests.web.fake_control import BEN, FakeControl

Json = dict[str, Any]
CODE = "4-acorn-velvet-mango"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair, "_PAUSE_S", 0)


@pytest.fixture
def window(control: FakeControl) -> FakeControl:
    """A daemon that opens windows, through which ben comes."""
    control.answers["pair_new"] = {"code": CODE, "expires_s": 300.0}
    control.answers["pair_result"] = {"state": "paired", "device": BEN}
    control.answers["pair_join"] = {"device": BEN}
    return control


def results(control: FakeControl, *answers: Json) -> None:
    waiting = list(answers)

    async def result(timeout: float) -> Json:  # noqa: ASYNC109
        return waiting.pop(0)

    control.answers["pair_result"] = result


def test_a_code_is_shown_and_whoever_comes_is_named(cli: CommandLine, window: FakeControl) -> None:
    results(window, {"state": "open"}, {"state": "open"}, {"state": "paired", "device": BEN})
    result = cli("pair", "new")
    assert result.code == 0
    assert f"\n    {CODE}\n" in result.out
    assert "It works once, for 5 min." in result.out
    assert result.out.endswith("Paired with ben (bcdefgh).\n")


@pytest.mark.parametrize("option", ["--json", "--no-wait"])
def test_the_window_can_be_left_open(cli: CommandLine, window: FakeControl, option: str) -> None:
    result = cli("pair", "new", option)
    assert (result.code, CODE in result.out) == (0, True)
    assert [call[0] for call in window.calls] == ["pair_new"]
    if option == "--json":
        assert result.json() == {"code": CODE, "expires_s": 300.0}


@pytest.mark.parametrize(
    ("state", "code", "says"),
    [
        ("expired", 6, "The code expired unused; run `p2psync pair new` for another."),
        ("burned", 5, "The pairing is burned; run `p2psync pair new` for another code."),
        ("cancelled", 5, "The pairing is cancelled; run `p2psync pair new` for another code."),
    ],
)
def test_a_window_that_ends_otherwise_is_an_error(
    cli: CommandLine, window: FakeControl, state: str, code: int, says: str
) -> None:
    results(window, {"state": state})
    result = cli("pair", "new")
    assert (result.code, result.sentence) == (code, f"p2psync: {says}")
    results(window, {"state": state, "reason": "So it is."})
    assert cli("pair", "new").sentence == "p2psync: So it is."


def test_failed_attempts_are_told_once(cli: CommandLine, window: FakeControl) -> None:
    failed = {"state": "open", "reason": "A wrong code was tried."}
    results(window, failed, failed, {"state": "paired", "device": BEN})
    result = cli("pair", "new")
    assert (result.code, result.sentence) == (0, "A wrong code was tried.")


def test_a_daemon_that_never_says_how_it_ended_is_not_waited_for(
    cli: CommandLine, window: FakeControl
) -> None:
    window.answers["pair_new"] = {"code": CODE, "expires_s": -100.0}
    window.answers["pair_result"] = {"state": "open"}
    result = cli("pair", "new")
    assert result.code == 6
    assert result.sentence.startswith("p2psync: No device paired in time")


def test_an_interrupt_closes_the_window(
    cli: CommandLine, window: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pair, "_await_device", interrupt)
    result = cli("pair", "new")
    assert result.code == 130
    assert result.err == "The pairing window is closed.\n"
    assert window.calls[-1] == ("pair_cancel", {})


# --- key files ---------------------------------------------------------------------------------


def test_a_key_file_is_made_once_and_used_by_both(
    cli: CommandLine, window: FakeControl, tmp_path: Path
) -> None:
    first = cli("pair", "new", "--key-file", "the key")
    assert first.code == 0
    assert "Whoever has it can pair" in first.sentence
    assert "pair join --key-file the key\n" in first.out
    assert CODE not in first.out
    key = (tmp_path / "the key").read_text().strip()
    assert ("pair_new", {"key": key}) in window.calls
    assert key not in first.out + first.err

    assert cli("pair", "new", "--key-file", "the key").err == ""
    assert (tmp_path / "the key").read_text().strip() == key
    assert cli("pair", "join", "--key-file", "the key").code == 0
    assert window.calls[-1] == ("pair_join", {"code": None, "key": key, "address": None})


def test_a_key_that_opened_no_window_is_not_left_behind(
    cli: CommandLine, window: FakeControl, tmp_path: Path
) -> None:
    window.answers["pair_new"] = RefusedError("One is open already.")
    assert cli("pair", "new", "--key-file", "key").code == 5
    assert not (tmp_path / "key").exists()


def test_without_a_daemon_no_key_is_made(cli: CommandLine, tmp_path: Path) -> None:
    assert cli("pair", "new", "--key-file", "key").code == 3
    assert not (tmp_path / "key").exists()


# --- joining -----------------------------------------------------------------------------------


def test_a_code_is_taken_from_the_command_line_or_from_standard_input(
    cli: CommandLine, window: FakeControl
) -> None:
    for result in (cli("pair", "join", CODE), cli("pair", "join", stdin=f" {CODE}\r\nmore\n")):
        assert (result.code, result.out) == (0, "Paired with ben (bcdefgh).\n")
        assert result.sentence == "Looking for the other device…"
    assert window.calls == [("pair_join", {"code": CODE, "key": None, "address": None})] * 2


def test_on_a_terminal_the_code_is_asked_for(cli: CommandLine, window: FakeControl) -> None:
    asked = cli("pair", "join", stdin=f"{CODE}\n", at_terminal=True)
    assert asked.err.startswith("Code shown on the other device: ")
    assert window.calls[0][1]["code"] == CODE
    nothing = cli("pair", "join", at_terminal=True)
    assert nothing.code == 1
    assert nothing.err.endswith("p2psync: No code was entered.\n")


def test_an_address_is_passed_on(cli: CommandLine, window: FakeControl) -> None:
    result = cli("pair", "join", CODE, "--address", "[fe80::1]:4000", "--json")
    assert result.json() == {"device": BEN}
    assert result.err == ""
    assert window.calls[0][1]["address"] == "[fe80::1]:4000"


def test_a_wrong_code_is_what_the_daemon_says(cli: CommandLine, window: FakeControl) -> None:
    window.answers["pair_join"] = RefusedError("The code is wrong.")
    result = cli("pair", "join", CODE)
    assert result.code == 5
    assert result.err.endswith("p2psync: The code is wrong.\n")


def test_a_key_file_that_is_missing_says_where_it_comes_from(
    cli: CommandLine, window: FakeControl
) -> None:
    result = cli("pair", "join", "--key-file", "key")
    assert result.code == 4
    assert "copy it from the device that made it" in result.sentence
    assert window.calls == []
