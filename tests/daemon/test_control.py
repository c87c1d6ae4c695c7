"""Which device a person means, and how much is under way."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from p2psync.core.ids import DeviceID, format_device_id
from p2psync.daemon.control import DaemonControl
from p2psync.errors import NotFoundError, UsageError

ADA, BOB, EVE = (DeviceID(bytes([number]) * 32) for number in (1, 2, 3))


def _control(**names: str) -> DaemonControl:
    """Ada's, in a group with Bob and Eve, who are called so unless `names` says otherwise."""
    called = {ADA: "ada", BOB: names.get("bob", "bob"), EVE: names.get("eve", "eve")}
    membership: Any = SimpleNamespace(
        own=SimpleNamespace(device=ADA), members={BOB: None, EVE: None}, name_of=called.get
    )
    report: Any = SimpleNamespace(device_row=lambda device: {"name": called[device]})
    nothing: Any = None
    return DaemonControl(
        membership, nothing, nothing, report, nothing, checks=list, end=lambda: None
    )


async def _meant(control: DaemonControl, text: str) -> Any:
    answer = await control.device_remove(device=text, dry_run=True)
    return answer["device"]["name"]


@pytest.mark.parametrize(
    "text", ["bob", format_device_id(BOB), format_device_id(BOB)[:7], format_device_id(BOB)[:4]]
)
async def test_a_device_is_meant_by_its_name_or_its_id_or_the_beginning_of_that(text: str) -> None:
    assert await _meant(_control(), text) == "bob"


@pytest.mark.parametrize("text", ["nobody", format_device_id(BOB)[:3], ""])
async def test_what_means_nobody_is_told(text: str) -> None:
    with pytest.raises(NotFoundError, match="No device"):
        await _meant(_control(), text)


async def test_a_name_that_looks_like_the_id_of_another_device_misleads_nobody() -> None:
    short = format_device_id(EVE)[:7]
    with pytest.raises(UsageError, match="more than one device"):
        await _meant(_control(bob=short), short)
    whole = format_device_id(EVE)
    assert await _meant(_control(bob=whole), whole) == "eve"


async def test_a_name_that_two_devices_have_is_not_enough() -> None:
    with pytest.raises(UsageError, match="more than one device"):
        await _meant(_control(bob="twin", eve="twin"), "twin")


async def test_doctor_counts_the_tasks_that_are_under_way() -> None:
    control = _control()
    before = (await control.doctor())["tasks"]
    left = [asyncio.create_task(asyncio.sleep(60)) for _ in range(3)]
    assert (await control.doctor())["tasks"] == before + 3
    for task in left:
        task.cancel()
    await asyncio.wait(left)
    assert (await control.doctor())["tasks"] == before


async def test_doctor_counts_the_threads_of_the_pool() -> None:
    control = _control()
    go_on = threading.Event()
    waiting = [asyncio.create_task(asyncio.to_thread(go_on.wait)) for _ in range(3)]
    other = threading.Thread(target=go_on.wait)
    other.start()
    # They begin.
    await asyncio.sleep(0)
    try:
        # Those that wait, and the one that looks.
        assert (await control.doctor())["pooled_threads"] == 4
    finally:
        go_on.set()
        await asyncio.wait(waiting)
        other.join()
