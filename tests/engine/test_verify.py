"""Everything that is held is read now and then, and no faster than it may be."""

import asyncio
import contextlib
import errno
import random
from collections.abc import AsyncIterator, Callable

import pytest

from p2psync.core.relpath import RelPath
from p2psync.engine.verify import Schedule, Verifier
from p2psync.ports import Place, RootUnavailableError, Scrub
from tests.support.devices import FOLDER, Device, Lab
from tests.support.memory_disk import chunked

BIG = random.Random(1).randbytes(2 * 1024 * 1024)
KIB = 1024
DAY_S = 86_400


def verifier(
    device: Device, lab: Lab, schedule: Schedule | None = None, *, gate: asyncio.Lock | None = None
) -> Verifier:
    async def sleep(seconds: float) -> None:
        lab.clock.advance(seconds)

    return Verifier(
        FOLDER,
        device.index,
        device.disk,
        lab.clock,
        device.integrity,
        schedule or Schedule(),
        gate=gate or asyncio.Lock(),
        sleep=sleep,
    )


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - the verifier tells nobody
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def running(verifier: Verifier) -> AsyncIterator[None]:
    task = asyncio.create_task(verifier.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def full(ada: Device) -> Device:
    """With three files and a directory."""
    ada.disk.write("a", "first")
    ada.disk.write("d/big", BIG)
    ada.disk.write("z", "last")
    await ada.work()
    return ada


async def damaged(device: Device) -> list[str]:
    return [path for path, _ in await device.index.damaged(10)]


async def test_every_file_is_read_and_the_sound_ones_left_alone(lab: Lab, full: Device) -> None:
    sequence = full.index.sequence
    scrub = await verifier(full, lab).read_all()

    assert (scrub.files, scrub.bytes, scrub.damaged) == (3, len(BIG) + 9, 0)
    assert scrub.finished_ns >= scrub.begun_ns > 0
    assert await full.index.scrub() == scrub
    assert full.index.sequence == sequence
    assert not full.local.pending


@pytest.mark.parametrize("at", [0, len(BIG) // 2, len(BIG) - 1])
async def test_damage_is_found_in_small_files_and_anywhere_in_large_ones(
    lab: Lab, full: Device, at: int
) -> None:
    full.disk.rot("z")
    full.disk.rot("d/big", at=at)

    scrub = await verifier(full, lab).read_all()

    assert await damaged(full) == ["d/big", "z"]
    assert (scrub.files, scrub.damaged) == (3, 2)
    assert [str(finding.path) for finding in await full.index.findings()] == ["d/big", "z"]


async def test_what_was_damaged_and_is_well_again_is_found_so(lab: Lab, full: Device) -> None:
    full.disk.fail("read", "z", errno.EIO)
    full.disk.fail("hash_file", "z", errno.EIO)
    assert (await verifier(full, lab).read_all()).damaged == 1
    full.disk.mend()

    assert (await verifier(full, lab).read_all()).damaged == 0
    assert await damaged(full) == []


async def test_an_edit_that_no_scan_has_seen_is_left_to_it(lab: Lab, full: Device) -> None:
    lab.clock.advance(1)
    full.disk.write("z", "LAST")
    full.disk.remove("a")

    assert (await verifier(full, lab).read_all()).damaged == 0
    assert full.local.pending
    assert await damaged(full) == []


async def test_it_reads_no_faster_than_it_is_told_to(lab: Lab, full: Device) -> None:
    begun = lab.clock.monotonic()
    await verifier(full, lab, Schedule(rate=KIB * KIB)).read_all()
    took = lab.clock.monotonic() - begun

    # Small files count for something too; the last read is not waited for.
    assert 1.0 < took <= (len(BIG) + 2 * 64 * KIB) / (KIB * KIB)


async def test_a_faster_rate_is_heeded_at_once(lab: Lab, full: Device) -> None:
    one = verifier(full, lab, Schedule(rate=1e-6))
    begun = lab.clock.monotonic()
    slept = lab.clock.advance

    async def sleep(seconds: float) -> None:
        slept(seconds)
        assert lab.clock.monotonic() - begun < 5
        one.start(1e9)

    one._sleep = sleep
    await one.read_all()


async def test_what_is_being_written_is_judged_when_it_no_longer_is(lab: Lab, full: Device) -> None:
    full.disk.rot("z")
    full.disk.written.add("z")
    assert (await verifier(full, lab).read_all()).damaged == 0
    await full.integrity.judge_suspects()
    assert await damaged(full) == []

    full.disk.written.clear()
    lab.clock.advance(61)
    await full.integrity.judge_suspects()
    assert await damaged(full) == ["z"]


async def test_to_judge_a_file_counts_as_reading_it(lab: Lab, full: Device) -> None:
    full.disk.rot("d/big")
    begun = lab.clock.monotonic()
    await verifier(full, lab, Schedule(rate=KIB * KIB)).read_all()
    # The first chunk, then all of it.
    assert lab.clock.monotonic() - begun > 2.0


async def test_it_goes_on_where_it_was_interrupted(lab: Lab, full: Device) -> None:
    first = chunked(BIG)[0]

    def lose() -> None:
        full.disk.root_is_lost = True

    one = verifier(full, lab, Schedule(rate=KIB))
    full.disk.before("read", lambda: full.disk.before("read", lose))
    with pytest.raises(RootUnavailableError):
        await one.read_all()
    full.disk.root_is_lost = False
    assert one.is_running

    seen: list[Place] = []
    read = full.disk.read

    def watched(place: Place, *, fresh: bool = False) -> bytes:
        seen.append(place)
        assert fresh
        return read(place, fresh=fresh)

    full.disk.read = watched  # type: ignore[method-assign]
    scrub = await verifier(full, lab).read_all()

    assert seen[0] == Place(RelPath("d/big"), 0, first.size)
    assert (scrub.files, scrub.position) == (3, "")


async def test_nothing_is_read_before_it_is_due(lab: Lab, full: Device) -> None:
    one = verifier(full, lab, Schedule(interval_s=DAY_S))
    async with running(one):
        await eventually(lambda: one._scrub is not None and one._scrub.finished_ns > 0)
        assert await one.progress() == Scrub(finished_ns=lab.clock.now_ns())
        assert not one.is_running
    lab.clock.advance(DAY_S - 1)
    async with running(one):
        await asyncio.sleep(0.01)
        assert (await one.progress()).begun_ns == 0
    lab.clock.advance(1)
    async with running(one):
        await eventually(lambda: one._scrub is not None and one._scrub.files == 3)
        await eventually(lambda: not one.is_running)


async def test_without_a_schedule_it_waits_to_be_asked(lab: Lab, full: Device) -> None:
    one = verifier(full, lab)
    async with running(one):
        lab.clock.advance(1000 * DAY_S)
        await asyncio.sleep(0.01)
        assert not one.is_running
        one.start(None)
        assert one.is_running
        await eventually(lambda: not one.is_running)
        first = await one.progress()
        assert first.files == 3
        lab.clock.advance(1)
        one.start(1e9)
        await eventually(lambda: not one.is_running)
        assert (await one.progress()).begun_ns > first.begun_ns


async def test_an_unfinished_one_goes_on_by_itself(lab: Lab, full: Device) -> None:
    await full.index.save_scrub(Scrub(begun_ns=5, position="d", files=1, bytes=5))
    one = verifier(full, lab)
    async with running(one):
        await eventually(lambda: one._scrub is not None and one._scrub.finished_ns > 0)

    assert (await one.progress()).files == 3


async def test_folders_are_read_one_after_the_other(lab: Lab, full: Device) -> None:
    gate = asyncio.Lock()
    one = verifier(full, lab, gate=gate)
    async with gate, running(one):
        one.start(None)
        await asyncio.sleep(0.01)
        assert one.is_running
        assert (await one.progress()).files == 0
