"""A process that ends between a commit and its record."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from p2psync.core.entry import Kind
from p2psync.core.observe import Observation, successor
from p2psync.core.relpath import RelPath
from p2psync.core.version import Dot
from p2psync.ports import Outcome, Problem, Result, Row, Step
from tests.support.devices import Device, Lab


@pytest.fixture(params=[0, 5])
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    """With replicas of several orders: of two versions alike it decides which one shows."""
    lab = Lab(tmp_path, seed=request.param)
    yield lab
    await lab.close()


IT = RelPath("it")


class _KilledError(BaseException):
    """Stands for kill -9."""


async def _killed_before_recording(lab: Lab, device: Device) -> Device:
    """The device restarted, after it was killed when a commit had changed its disk."""

    async def killed(*_: object, **__: object) -> int:
        raise _KilledError

    return await _killed_in(lab, device, device.index, "record", killed)


async def _killed_before_placing(lab: Lab, device: Device) -> Device:
    """The device restarted, after it was killed when a commit was about to change its disk."""

    def killed(*_: object, **__: object) -> list[Result]:
        raise _KilledError

    return await _killed_in(lab, device, device.disk, "commit", killed)


async def _killed_in(
    lab: Lab, device: Device, owner: object, call: str, killed: Callable[..., object]
) -> Device:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, call, killed)
        with pytest.raises(_KilledError):
            await device.puller.run_until_idle()
    await lab.stop(device)
    return await lab.device(device.name, disk=device.disk)


async def _offered(lab: Lab, device: Device) -> None:
    while not (await device.index.counts()).need_files:
        lab.changed.clear()
        await lab.changed.wait()


async def _new_offered(lab: Lab, was: str | None = None) -> tuple[Device, Device]:
    """Two devices that had “it” as it `was`; the second has written it since, and offers it."""
    ada, bob = devices = await lab.devices("ada bob")
    lab.connect(ada, bob)
    if was is not None:
        bob.disk.write("it", was)
    await lab.converge(devices)
    bob.disk.write("it", "new")
    await bob.scan()
    await _offered(lab, ada)
    return ada, bob


@pytest.mark.parametrize("was", [None, "old"], ids=["new", "edited"])
@pytest.mark.parametrize("kind", ["file", "link", "directory"])
async def test_what_it_placed_is_no_version_of_its_own(
    lab: Lab, kind: str, was: str | None
) -> None:
    ada, bob, cyd = devices = await lab.devices("ada bob cyd")
    for one, other in ((ada, bob), (bob, cyd), (ada, cyd)):
        lab.connect(one, other)
    if was is not None:
        bob.disk.write("it", was)
    await lab.converge(devices)
    if was is not None:
        bob.disk.remove("it")
    match kind:
        case "file":
            bob.disk.write("it", "new")
        case "link":
            bob.disk.link("it", "target")
        case "directory":
            bob.disk.make_directory("it")
    await bob.scan()
    await _offered(lab, ada)

    ada = await _killed_before_recording(lab, ada)
    await ada.scan()
    # Someone else has it and deletes it, before anything is heard of the restart.
    await lab.until(lambda: "it" in cyd.disk.tree() and cyd.disk.tree()["it"] != b"old", cyd)
    cyd.disk.remove("it")
    await cyd.scan()
    for one, other in ((ada, bob), (ada, cyd)):
        lab.connect(one, other)

    assert await lab.converge([ada, bob, cyd]) == {}
    entries = await ada.index.entries_after(0, 100)
    assert [entry.kind for _, path, entry in entries if path == "it"] == [Kind.TOMBSTONE]


@pytest.mark.parametrize("was", [None, "old"], ids=["new", "edited"])
@pytest.mark.parametrize("deleted", ["before", "after"])
async def test_what_a_killed_process_placed_goes_though_it_was_deleted_elsewhere_meanwhile(
    lab: Lab, deleted: str, was: str | None
) -> None:
    """Before the kill, or after it and before the restarted process has looked."""
    ada, bob = await _new_offered(lab, was)

    async def delete() -> None:
        bob.disk.remove("it")
        await bob.scan()
        await lab.settle()

    if deleted == "before":
        commit = ada.disk.commit

        def told_meanwhile(steps: Sequence[Step], **more: bool) -> list[Result]:
            results = commit(steps, **more)
            asyncio.run_coroutine_threadsafe(delete(), loop).result(30)
            return results

        loop = asyncio.get_running_loop()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ada.disk, "commit", told_meanwhile)
            ada = await _killed_before_recording(lab, ada)
    else:
        ada = await _killed_before_recording(lab, ada)
        lab.connect(ada, bob)
        await delete()
    assert ada.disk.tree() == {"it": b"new"}
    if deleted == "before":
        await ada.scan()
        lab.connect(ada, bob)
    assert await lab.converge([ada, bob]) == {}
    assert not await ada.index.underway()


@pytest.mark.parametrize("was", [None, "old"], ids=["new", "edited"])
async def test_what_a_killed_process_placed_goes_though_it_is_not_judged_before_the_deletion(
    lab: Lab, was: str | None
) -> None:
    """The first scan leaves alone what is so new that it may still be written to."""
    ada, bob = await _new_offered(lab, was)
    ada = await _killed_before_recording(lab, ada)
    lab.connect(ada, bob)
    bob.disk.remove("it")
    await bob.scan()
    await lab.settle()
    ada.disk.link_elsewhere("it")
    ada.local.mark(None)
    await ada.local.scan()
    assert IT in await ada.index.underway()
    await ada.puller.run_until_idle()
    assert await lab.converge([ada, bob]) == {}


@pytest.mark.parametrize("was", [None, "old"], ids=["new", "edited"])
async def test_what_could_not_be_recorded_goes_though_the_deletion_is_pulled_before_a_scan(
    lab: Lab, was: str | None
) -> None:
    ada, bob = await _new_offered(lab, was)

    async def record(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ada.index, "record", record)
        with pytest.raises(OSError, match="No space"):
            await ada.puller.run_until_idle()
    bob.disk.remove("it")
    await bob.scan()
    await lab.settle()
    await ada.puller.run_until_idle()
    assert await lab.converge([ada, bob]) == {}


@pytest.mark.parametrize("kind", ["file", "directory"])
async def test_what_was_placed_is_durable_before_it_is_recorded(lab: Lab, kind: str) -> None:
    """A power cut would undo it otherwise, and that would look like a deletion made here."""
    ada, bob = await lab.devices("ada bob")
    lab.connect(ada, bob)
    if kind == "file":
        bob.disk.write("it", "new")
    else:
        bob.disk.make_directory("it")
    bob.disk.write("other", "new")
    await bob.scan()
    await _offered(lab, ada)
    ada = await _killed_before_recording(lab, ada)
    ada.disk.fail("make_durable", "it", errno.EIO)
    await ada.scan()
    assert (await ada.index.held([IT, RelPath("other")])).keys() == {"other"}
    assert [problem.path for problem in ada.problems.listed()] == ["it"]
    ada.disk.mend()
    lab.clock.advance(1)
    await ada.scan()
    assert (await ada.index.held([IT]))[IT].entry.version.dot.replica == bob.index.replica
    assert not ada.problems.listed()


async def test_what_could_not_be_made_durable_is_no_problem_once_it_is_another_thing(
    lab: Lab,
) -> None:
    ada, bob = await lab.devices("ada bob")
    lab.connect(ada, bob)
    bob.disk.make_directory("it")
    await bob.scan()
    await _offered(lab, ada)
    ada = await _killed_before_recording(lab, ada)
    ada.disk.fail("make_durable", "it", errno.EIO)
    await ada.scan()
    ada.disk.remove("it")
    ada.disk.link("it", "target")
    lab.clock.advance(1)
    await ada.scan()
    assert not ada.problems.listed()


async def test_what_somebody_moved_to_where_something_was_to_be_placed_is_a_version_of_its_own(
    lab: Lab,
) -> None:
    ada, bob = await lab.devices("ada bob")
    ada.disk.write("elsewhere", "same", mtime_ns=5)
    await ada.scan()
    lab.connect(ada, bob)
    bob.disk.write("it", "same", mtime_ns=5)
    await bob.scan()
    await _offered(lab, ada)
    ada = await _killed_before_placing(lab, ada)
    ada.disk.rename("elsewhere", "it")
    await ada.scan()
    mine = (await ada.index.held([IT]))[IT].entry
    assert mine.version.dot.replica == ada.index.replica


@pytest.mark.parametrize("was", [None, "old"], ids=["new", "edited"])
async def test_what_was_not_placed_is_forgotten_by_the_next_scan(lab: Lab, was: str | None) -> None:
    ada, _ = await _new_offered(lab, was)
    ada = await _killed_before_placing(lab, ada)
    assert IT in await ada.index.underway()
    await ada.scan()
    assert not await ada.index.underway()


@pytest.mark.parametrize("full", ["index", "disk"])
async def test_what_could_not_be_recorded_is_no_edit_though_it_was_deleted_elsewhere_meanwhile(
    lab: Lab, full: str
) -> None:
    """For lack of room in the index, or because its directory could not be made durable."""
    ada, bob = devices = await lab.devices("ada bob")
    lab.connect(ada, bob)
    bob.disk.write("it", "new")
    await bob.scan()
    await _offered(lab, ada)
    error = OSError(errno.ENOSPC, "No space left on device")
    commit = ada.disk.commit

    async def record(*_: object, **__: object) -> int:
        raise error

    def not_durable(steps: Sequence[Step], **more: bool) -> list[Result]:
        problem = Problem(RelPath("it"), "The disk is full.", "Free some space.")
        return [
            each._replace(outcome=Outcome.FAILED, problem=problem) for each in commit(steps, **more)
        ]

    with pytest.MonkeyPatch.context() as patch:
        if full == "index":
            patch.setattr(ada.index, "record", record)
            with pytest.raises(OSError, match="No space"):
                await ada.puller.run_until_idle()
        else:
            patch.setattr(ada.disk, "commit", not_durable)
            await ada.puller.run_until_idle()
    bob.disk.remove("it")
    await bob.scan()
    await lab.settle()
    assert ada.disk.tree() == {"it": b"new"}
    assert await lab.converge(devices) == {}
    assert not await ada.index.underway()


async def test_what_could_not_be_placed_is_not_remembered(lab: Lab) -> None:
    """Or what a person puts there one day, times and all, would be taken for an old version."""
    ada, bob = await lab.devices("ada bob")
    lab.connect(ada, bob)
    bob.disk.write("it", "new")
    await bob.scan()
    await _offered(lab, ada)
    ada.disk.write("it", "mine")
    await ada.puller.run_until_idle()
    assert ada.disk.tree() == {"it": b"mine"}
    assert not await ada.index.underway()


async def test_a_rename_that_it_did_not_record_is_known_again(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    connection = lab.connect(ada, bob)
    bob.disk.write("old", "content")
    await lab.converge(devices)
    await connection.cut()
    bob.disk.rename("old", "new")
    await bob.scan()
    lab.connect(ada, bob)
    await _offered(lab, ada)

    ada = await _killed_before_recording(lab, ada)
    assert ada.disk.tree() == {"new": b"content"}
    await ada.scan()
    assert (await ada.index.held([RelPath("new")]))[RelPath("new")].entry.version.dot.replica == (
        bob.index.replica
    )
    lab.connect(ada, bob)
    assert await lab.converge([ada, bob]) == {"new": b"content"}


async def test_what_somebody_renamed_to_what_is_offered_is_a_version_of_its_own(lab: Lab) -> None:
    """Or whoever replaces what is offered, without having seen the rename, would replace it too."""
    ada, bob = await lab.devices("ada bob")
    ada.disk.write("elsewhere", "same", mtime_ns=5)
    await ada.scan()
    lab.connect(ada, bob)
    bob.disk.write("it", "same", mtime_ns=5)
    await bob.scan()
    await _offered(lab, ada)
    ada.disk.rename("elsewhere", "it")
    await ada.scan()
    mine = (await ada.index.held([IT]))[IT].entry
    assert mine.version.dot.replica == ada.index.replica
    assert await lab.converge([ada, bob]) == {"it": b"same"}


async def test_an_edit_that_only_looks_alike_is_one(lab: Lab) -> None:
    """Another time tells that somebody wrote it here."""
    ada, bob, cyd = devices = await lab.devices("ada bob cyd")
    for one, other in ((ada, bob), (bob, cyd)):
        lab.connect(one, other)
    bob.disk.write("it", "same")
    await bob.scan()
    await _offered(lab, ada)
    lab.clock.advance(5.0)
    ada.disk.write("it", "same")
    await ada.scan()
    (mine,) = [entry for _, _, entry in await ada.index.entries_after(0, 100)]
    assert mine.version.dot.replica == ada.index.replica
    assert await lab.converge(devices) == {"it": b"same"}


async def test_an_entry_that_tells_another_size_is_not_taken_for_what_lies_here(lab: Lab) -> None:
    """No honest device has such a one, and what it names could be had from nobody."""
    ada, eve = devices = await lab.devices("ada eve")
    lab.connect(ada, eve)
    ada.disk.write("it", "same")
    await lab.converge(devices)
    mine = (await ada.index.held([IT]))[IT].entry
    dot = Dot(eve.index.replica, eve.index.counter + 1)
    observed = Observation(Kind.FILE, mine.content, 999, mine.mtime_ns, mine.executable)
    lie = successor(mine, observed._replace(content=b"x" * 32), dot, now_ns=10**18, author="eve")
    lie = msgspec.structs.replace(lie, content=mine.content)
    await eve.index.record([Row(IT, lie, None)])
    eve.announce()
    await _offered(lab, ada)
    ada.disk.remove("it")
    ada.disk.write("it", "same", mtime_ns=mine.mtime_ns)
    await ada.scan()
    assert (await ada.index.held([IT]))[IT].entry.size == 4
