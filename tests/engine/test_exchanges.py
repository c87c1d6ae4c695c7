import asyncio
from typing import Any, cast

import pytest

from p2psync.engine.exchanges import Exchanges
from p2psync.engine.packing import Packing
from p2psync.engine.session import Session
from p2psync.engine.supplier import Supplier
from p2psync.protocol.messages import (
    MISSING,
    PROTOCOL_VERSION,
    AnyMessage,
    ChunkReply,
    ChunkRequest,
    Hello,
    ManifestReply,
    ManifestRequest,
)
from tests.support.devices import FOLDER, Device, device_id
from tests.support.manual_clock import ManualClock
from tests.support.memory_link import linked


async def test_a_session_that_comes_as_the_work_ends_is_left_alone() -> None:
    nothing = cast(Any, None)
    exchanges = Exchanges(FOLDER, nothing, nothing, nothing, nothing, nothing)
    hello = Hello(PROTOCOL_VERSION, (), "test", b"\0" * 32, 0)
    session = Session(linked(device_id("ada"), device_id("bob"))[0], hello, ManualClock())
    async with asyncio.TaskGroup() as group:
        exchanges.begin(group)

    await exchanges.attach(session)

    assert exchanges.all() == []


async def test_who_asks_a_folder_that_is_not_at_work_need_not_wait() -> None:
    nothing = cast(Any, None)
    exchanges = Exchanges(FOLDER, nothing, nothing, nothing, nothing, nothing)
    said: list[AnyMessage] = []

    class Asking:
        def post(self, message: AnyMessage) -> None:
            said.append(message)

    asking = cast(Session, Asking())
    await exchanges.handle(asking, ChunkRequest(1, FOLDER, (b"x" * 32,) * 2), b"")
    await exchanges.handle(asking, ManifestRequest(2, FOLDER, b"x" * 32), b"")

    assert said == [ChunkReply(1, (MISSING, MISSING)), ManifestReply(2)]


async def test_chunks_are_asked_of_the_supplier_with_what_packs_them_for_this_peer(
    ada: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = cast(Any, None)
    packing = Packing(ManualClock())
    asked: list[tuple[ChunkRequest, Packing | None]] = []

    class Supplying:
        async def _reply(self) -> tuple[AnyMessage, bytes]:
            raise AssertionError("the session does not run")

        def chunks(self, request: ChunkRequest, packing: Packing | None) -> Any:
            asked.append((request, packing))
            return self._reply()

    monkeypatch.setattr(Session, "packing", packing)
    supplier = cast(Supplier, Supplying())
    exchanges = Exchanges(FOLDER, ada.index, supplier, ada.swarm, ada, nothing)
    hello = Hello(PROTOCOL_VERSION, (), "test", b"\0" * 32, 0)
    session = Session(linked(ada.id, device_id("bob"))[0], hello, ManualClock())
    request = ChunkRequest(1, FOLDER, (b"x" * 32,))
    async with asyncio.TaskGroup() as group:
        exchanges.begin(group)
        await exchanges.attach(session)
        await exchanges.handle(session, request, b"")
        exchanges.end()

    assert asked == [(request, packing)]
