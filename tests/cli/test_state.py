"""`status`, `wait` and `approve`."""

from typing import Any

import pytest

from p2psync.cli import state
from p2psync.errors import RefusedError
from tests.cli.conftest import CommandLine
from tests.web.fake_control import FakeControl, folder, status

Json = dict[str, Any]


def test_the_status_is_told_for_people_and_as_it_came(
    cli: CommandLine, control: FakeControl
) -> None:
    control.answers["status"] = status(folders=[folder()])
    told = cli("status")
    assert (told.code, told.err) == (0, "")
    assert "/home/ana/Sync" in told.out
    assert cli("status", "--json").json() == status(folders=[folder()])


def test_waiting_ends_when_nothing_is_pending(cli: CommandLine, control: FakeControl) -> None:
    control.answers["wait"] = {"done": True, "waiting_for": []}
    result = cli("wait")
    assert (result.code, result.out, result.err) == (0, "In sync.\n", "")
    assert control.calls == [("wait", {"timeout": state._POLL_S})]
    assert cli("wait", "--json").json() == {"done": True, "waiting_for": []}


def test_waiting_goes_on_in_slices(
    cli: CommandLine, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "_PAUSE_S", 0)
    answers = [False, False, True]

    async def wait(timeout: float) -> Json:  # noqa: ASYNC109
        return {"done": answers.pop(0), "waiting_for": []}

    control.answers["wait"] = wait
    assert cli("wait").code == 0
    assert answers == []
    answers += [False, True]
    assert cli("wait", "--timeout", "15").code == 0
    asked = [call[1]["timeout"] for call in control.calls]
    assert asked[:4] == [20.0, 20.0, 20.0, pytest.approx(15, abs=1)]
    assert asked[4] < asked[3]


def test_no_time_at_all_is_one_look(cli: CommandLine, control: FakeControl) -> None:
    reasons = [f"ben needs file {number}." for number in range(12)]
    control.answers["wait"] = {"done": False, "waiting_for": reasons}
    result = cli("wait", "--timeout", "0")
    assert result.code == 6
    assert result.sentence.startswith("p2psync: Not in sync after 0 s: ben needs file 0; ben")
    assert result.sentence.endswith("ben needs file 9; and 2 more.")
    assert [call[1] for call in control.calls] == [{"timeout": 0.0}]
    told = cli("wait", "--timeout", "0", "--json")
    assert told.code == 6
    assert told.json() == {"done": False, "waiting_for": reasons}


def test_a_daemon_that_gives_no_reason_is_told_as_that(
    cli: CommandLine, control: FakeControl
) -> None:
    control.answers["wait"] = {"done": False, "waiting_for": []}
    assert cli("wait", "--timeout", "0").sentence.endswith(
        "the daemon does not say what is missing."
    )


def test_deletions_are_approved_by_folder(cli: CommandLine, control: FakeControl) -> None:
    control.answers["approve"] = {"approved": 3}
    assert cli("approve", "Sync").out == "Approved 3 deletions in “Sync”.\n"
    assert cli("approve", "Sync", "--json").json() == {"approved": 3}
    assert control.changes() == [("approve", {"name": "Sync"})] * 2
    control.answers["approve"] = RefusedError("Nothing waits.")
    assert cli("approve", "Sync").code == 5
