import asyncio
from collections.abc import Awaitable, Callable

import pytest

from p2psync.engine.housekeeping import Housekeeping
from p2psync.ports import FolderIndex
from p2psync.protocol.messages import AnyMessage, FolderDigest
from tests.support.devices import FOLDER, Device, Lab


async def test_a_digest_names_what_had_come_when_it_was_made(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    lab.connect(ada, bob)
    ada.disk.write("doc", "first")
    await lab.converge(devices)
    (exchange,) = bob.exchanges.values()
    known = exchange.received
    meanwhile(bob.index, monkeypatch, lambda: more_from(lab, ada, bob))
    told: list[AnyMessage] = []
    monkeypatch.setattr(exchange.session, "post", told.append)

    keeping = Housekeeping(
        FOLDER,
        bob.index,
        bob.disk,
        bob.turn,
        is_at_rest=lambda: True,
        exchanges=lambda: list(bob.exchanges.values()),
    )
    await keeping._tell_digest()

    assert exchange.received > known
    assert [each.received for each in told if isinstance(each, FolderDigest)] == [known]


def meanwhile(
    index: FolderIndex, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[None]]
) -> None:
    """While the index makes its digest."""
    digest = index.digest

    async def slow_digest() -> bytes:
        await act()
        return await digest()

    monkeypatch.setattr(index, "digest", slow_digest)


async def more_from(lab: Lab, ada: Device, bob: Device) -> None:
    """Bob has heard of it, and does not hold it yet."""
    ada.disk.write("new", "n")
    await ada.scan()
    (exchange,) = bob.exchanges.values()
    async with asyncio.timeout(5):
        while exchange.received < ada.index.sequence:
            await lab.changed.wait()
            lab.changed.clear()
