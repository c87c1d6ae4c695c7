import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.simulation.loop import CrashError, Life, SimulatedLoop


@pytest.fixture
def loop() -> Iterator[SimulatedLoop]:
    loop = SimulatedLoop(random.Random(1))
    yield loop
    loop.finish()


def test_an_hour_passes_at_once(loop: SimulatedLoop) -> None:
    began = time.monotonic()
    loop.run_until_complete(asyncio.sleep(3600.0))
    assert loop.time() == pytest.approx(3600.0)
    assert time.monotonic() - began < 0.2


def test_who_waits_for_nothing_is_told(loop: SimulatedLoop) -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nothing will be"):
        loop.run_until_complete(wait())


def test_an_executor_does_its_work_in_order_and_without_a_thread(loop: SimulatedLoop) -> None:
    done: list[int] = []

    async def order() -> None:
        with ThreadPoolExecutor(1) as executor:
            orders = [loop.run_in_executor(executor, done.append, number) for number in range(20)]
            await asyncio.gather(*orders)
            assert not executor._threads

    loop.run_until_complete(order())
    assert done == list(range(20))


def test_work_for_threads_is_done_in_an_order_that_is_the_seeds(loop: SimulatedLoop) -> None:
    def order_of(loop: SimulatedLoop) -> list[int]:
        done: list[int] = []

        async def order() -> None:
            await asyncio.gather(*(asyncio.to_thread(done.append, each) for each in range(20)))

        loop.run_until_complete(order())
        return done

    other, same = (SimulatedLoop(random.Random(seed)) for seed in (2, 1))
    orders = [order_of(each) for each in (loop, same, other)]
    other.finish()
    same.finish()
    assert orders[0] == orders[1] != orders[2]


def test_who_crashes_does_not_clean_up(loop: SimulatedLoop) -> None:
    cleaned: list[str] = []
    life = Life("ada", on_crash=lambda: loop.bury(life))

    def crash() -> None:
        raise CrashError

    async def live() -> None:
        try:
            await asyncio.to_thread(crash)
        finally:
            cleaned.append("up")

    async def watch() -> None:
        task = loop.create_task(live(), context=life.context.copy())
        await asyncio.sleep(100.0)
        assert not task.done()

    loop.run_until_complete(watch())
    assert not life.is_alive
    assert not cleaned
