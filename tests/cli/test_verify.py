"""`verify`."""

from typing import Any

import pytest

from p2psync.cli import verify as module
from tests.cli.conftest import CommandLine
from tests.web.fake_control import FakeControl, folder, status, verified

Json = dict[str, Any]

DONE = verified(
    begun="2026-03-01T10:00:00Z", finished="2026-03-01T11:00:00Z", files=3, bytes=2048, damaged=1
)


def finding(path: str, state: str) -> Json:
    return {"path": path, "found": "2026-03-01T10:30:00Z", "state": state}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_POLL_S", "_FIRST_POLL_S"):
        monkeypatch.setattr(module, name, 0.001)
    monkeypatch.setattr(module, "_MENDING_S", 0.05)


def answer(control: FakeControl, *rows: Json) -> None:
    """The folder's rows one after the other, the last one again and again."""
    left = list(rows)

    async def answered() -> Json:
        return status(folders=[folder(verify=left.pop(0) if len(left) > 1 else left[0])])

    control.answers["status"] = answered
    control.answers["verify"] = {"folders": ["Sync"]}


def test_it_waits_until_all_is_read_and_mended(cli: CommandLine, control: FakeControl) -> None:
    running = {**DONE, "running": True, "finished": None}
    bad = {**DONE, "findings": [finding("a", "damaged")]}
    answer(control, running, running, bad, {**DONE, "findings": [finding("a", "mended")]})

    result = cli("verify", "Sync", "--rate", "5")

    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "Verified “Sync” on 2026-03-01T11:00:00Z: 3 files (2.0 KiB), 1 damaged.",
        "  a: was damaged, and is no more (found 2026-03-01T10:30:00Z)",
        "  What was replaced is kept in “/home/ana/Sync/.p2psync/damaged”.",
    ]
    assert control.calls[0] == ("verify", {"name": "Sync", "rate": 5e6})


def test_what_stays_damaged_is_a_failure_with_a_code_of_its_own(
    cli: CommandLine, control: FakeControl
) -> None:
    answer(control, {**DONE, "findings": [finding("a", "damaged"), finding("b", "mended")]})

    result = cli("verify")
    assert result.code == 8
    assert "  a: is damaged (found 2026-03-01T10:30:00Z)" in result.out
    assert result.sentence.startswith("p2psync: 1 file is damaged and not mended yet")
    told = cli("verify", "--json")
    assert told.code == 8
    assert told.json()["folders"][0]["findings"][0]["state"] == "damaged"


def test_it_tells_how_far_it_is_but_not_to_programs(
    cli: CommandLine, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_FIRST_TELLING_S", "_TELL_EVERY_S"):
        monkeypatch.setattr(module, name, 0.0)
    running = {**DONE, "running": True, "finished": None}
    answer(control, running, DONE)
    assert cli("verify").err.splitlines() == [
        "Verifying “Sync”: 3 files (2.0 KiB) of 3 (2.0 KiB) read, 1 damaged."
    ]
    answer(control, running, DONE)
    assert cli("verify", "--json").err == ""


def test_without_a_rate_the_daemon_chooses(cli: CommandLine, control: FakeControl) -> None:
    answer(control, DONE)
    assert cli("verify").code == 0
    assert control.calls[0] == ("verify", {"name": None, "rate": None})


def test_it_can_be_left_to_the_daemon(cli: CommandLine, control: FakeControl) -> None:
    answer(control, {**DONE, "running": True, "finished": None, "files": 1, "bytes": 24})
    result = cli("verify", "--no-wait")
    assert result.code == 0
    assert result.out == "Verifying “Sync”: 1 file (24 bytes) of 3 (2.0 KiB) read, 1 damaged.\n"
    assert "Verifying “Sync”: 1 file" in cli("status").out


def test_many_findings_are_told_in_part(cli: CommandLine, control: FakeControl) -> None:
    answer(control, {**DONE, "findings": [finding(f"{n}", "mended") for n in range(25)]})
    assert cli("verify").out.splitlines()[-2] == "  … and 5 more (`p2psync verify --json`)."


def test_without_folders_there_is_nothing_to_do(cli: CommandLine, control: FakeControl) -> None:
    control.answers["verify"] = {"folders": []}
    assert cli("verify").out == "There is no folder to be verified.\n"


def test_a_folder_that_was_not_begun_says_so(cli: CommandLine, control: FakeControl) -> None:
    answer(control, verified())
    assert cli("verify").out == "“Sync” was never verified.\n"


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "200000"])
def test_a_rate_has_to_be_one(cli: CommandLine, control: FakeControl, rate: str) -> None:
    result = cli("verify", "--rate", rate)
    assert result.code == 2
    assert control.calls == []
