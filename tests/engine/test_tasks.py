import asyncio

import pytest

from p2psync.engine.tasks import together, whole


class BrokenError(Exception):
    pass


async def fail() -> None:
    raise BrokenError


async def test_the_error_of_a_task_is_raised_itself() -> None:
    with pytest.raises(BrokenError):
        async with together() as tasks:
            tasks.create_task(fail())
            await asyncio.Event().wait()


async def test_so_is_one_from_a_group_within_a_group() -> None:
    async def inner() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())

    with pytest.raises(BrokenError):
        async with together() as tasks:
            tasks.create_task(inner())


async def test_the_body_s_own_error_ends_the_tasks() -> None:
    with pytest.raises(BrokenError):
        async with together() as tasks:
            waiting = tasks.create_task(asyncio.Event().wait())
            await fail()
    assert waiting.cancelled()


async def test_a_cancellation_that_meets_an_error_is_not_forgotten() -> None:
    """Whoever goes on after the error would never end."""
    go_on = asyncio.Event()

    async def run() -> None:
        async with together() as tasks:
            tasks.create_task(whole(go_on.wait()))
            tasks.create_task(fail())

    task = asyncio.create_task(run())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_time_that_runs_out_when_an_error_was_raised_is_a_timeout() -> None:
    go_on = asyncio.Event()

    async def run() -> None:
        async with asyncio.timeout(0.01), together() as tasks:
            tasks.create_task(whole(go_on.wait()))
            tasks.create_task(fail())

    asyncio.get_running_loop().call_later(0.02, go_on.set)
    with pytest.raises(TimeoutError):
        await run()


async def test_work_that_is_to_be_whole_ends_before_a_cancellation() -> None:
    go_on = asyncio.Event()
    done = []

    async def work() -> int:
        await go_on.wait()
        done.append(1)
        return 5

    task = asyncio.create_task(whole(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


async def test_whole_work_returns_or_raises_as_it_does() -> None:
    async def five() -> int:
        return 5

    assert await whole(five()) == 5
    with pytest.raises(BrokenError):
        await whole(fail())


async def test_the_error_of_cancelled_work_is_not_reported_as_lost() -> None:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise BrokenError

    task = asyncio.create_task(whole(failing()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
