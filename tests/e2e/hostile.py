"""A member that says what it likes: really paired, over a real link, with frames made by hand.

It uses the project's own code to become a member and to shake hands, and nothing of it that would
keep it honest. Its event loop has a thread of its own, so that tests stay plain.
"""

import asyncio
import contextlib
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import blake3
import msgspec

from p2psync.core.entry import Entry, Kind, Manifest
from p2psync.core.manifest import decode_manifest
from p2psync.core.roster import OwnDevice, Roster, decode_statements
from p2psync.core.version import Dot, first_version
from p2psync.net.identity import (
    IdentityFiles,
    device_of_certificate,
    load_or_create_identity,
    verify,
)
from p2psync.net.link import TlsLink, handshake
from p2psync.net.pairing import join
from p2psync.net.tls import client_context
from p2psync.protocol.messages import (
    AnyMessage,
    ChunkReply,
    ChunkRequest,
    FolderOffer,
    Goodbye,
    Hello,
    IndexBatch,
    ManifestReply,
    Ping,
    Pong,
)
from p2psync.protocol.pairing_code import parse_code
from p2psync.protocol.wire import FrameReader, encode_frame, unpack_entries
from tests.e2e.device import FOLDER, Device
from tests.e2e.processes import eventually

REPLICA = 0x6D616C6C6F7279
PATIENCE_S = 20.0

T = TypeVar("T")
Answer = Callable[[AnyMessage], Sequence[tuple[AnyMessage, bytes]]]


def digest(data: bytes) -> bytes:
    return blake3.blake3(data).digest()


def file(number: int, content: bytes, size: int, **changes: Any) -> Entry:
    """A file of the member's, its `number`th write."""
    version = first_version(Dot(REPLICA, number), stamp=number, author="mallory")
    entry = Entry(Kind.FILE, version, content, size)
    return msgspec.structs.replace(entry, **changes)


def link(number: int, target: str) -> Entry:
    version = first_version(Dot(REPLICA, number), stamp=number, author="mallory")
    return Entry(Kind.SYMLINK, version, target.encode())


def pack(batch: Sequence[tuple[int, str, Entry]]) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(batch))


def nothing(_: AnyMessage) -> Sequence[tuple[AnyMessage, bytes]]:
    return ()


class Mallory:
    def __init__(self, home: Path, name: str = "mallory") -> None:
        self.name = name
        identity = load_or_create_identity(home)
        self._files = IdentityFiles.in_home(home)
        self.own = OwnDevice(
            device=identity.device,
            certificate=identity.certificate_der,
            sign=identity.sign,
            verify=verify,
            device_of=device_of_certificate,
        )
        self.roster = Roster().add(self.own, certificate=self.own.certificate, name=name)
        self._certificates: dict[str, bytes] = {}
        self._open: list[Conversation] = []

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=self.name)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for conversation in self._open:
            conversation.hang_up()
        self._open.clear()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, T], *, within: float = PATIENCE_S) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(within):
                return await work

        return asyncio.run_coroutine_threadsafe(bounded(), self._loop).result()

    def pair(self, device: Device, *, address: str | None = None) -> None:
        """Become a member of the device's group, over another address if one is given."""
        host, _, port = (address or device.address()).rpartition(":")
        joined = join(
            host,
            int(port),
            parse_code(device.new_code()),
            certificate=self.own.certificate,
            payload=msgspec.msgpack.encode((self.name, self.roster.encode())),
            random_bytes=os.urandom,
        )
        peer = self.do(joined)
        name, roster = msgspec.msgpack.decode(peer.payload, type=tuple[str, bytes])
        self.roster = self.roster.add(self.own, certificate=peer.certificate, name=name)
        self.roster = self.roster.merge(decode_statements(roster), self.own)
        self._certificates[device.name] = peer.certificate

    def connect(
        self, device: Device, *, answer: Answer = nothing, reads: bool = True, greets: bool = True
    ) -> "Conversation":
        """A link to a device it paired with; with `greets` the introductions are made on return."""
        conversation = self.do(self._connect(device, answer, reads=reads))
        self._open.append(conversation)
        if greets:
            conversation.say(Hello(1, (), "p2psync 1", self.roster.digest(), 0))
            if reads:
                conversation.until(lambda: conversation.heard_of(Hello) != [])
        return conversation

    async def _connect(self, device: Device, answer: Answer, *, reads: bool) -> "Conversation":
        host, _, port = device.address().rpartition(":")
        certificate = self._certificates[device.name]
        sock = socket.create_connection((host, int(port)))
        sock.setblocking(False)
        link = await handshake(
            sock,
            client_context(self._files, [certificate]),
            server_side=False,
            pinned={device_of_certificate(certificate): certificate},
            timeout=PATIENCE_S,
        )
        return Conversation(self, link, answer, reads=reads)


class Conversation:
    def __init__(self, member: Mallory, link: TlsLink, answer: Answer, *, reads: bool) -> None:
        self._member = member
        self._link = link
        self._answer = answer
        self.heard: list[AnyMessage] = []
        self.ended = threading.Event()
        self.index: dict[str, Entry] = {}
        """What the other side told of its own."""
        self.manifests: list[Manifest] = []
        self.epoch = time.monotonic_ns()
        self._upto = 0
        self._reading = asyncio.create_task(self._read()) if reads else None

    async def _read(self) -> None:
        reader = FrameReader()
        try:
            while data := await self._link.receive():
                reader.feed(data)
                while (frame := reader.next_frame()) is not None:
                    message = frame[0]
                    self.heard.append(message)
                    if isinstance(message, IndexBatch):
                        told = unpack_entries(frame[1])
                        self.index.update((path, entry) for _, path, entry in told)
                    if isinstance(message, ManifestReply) and frame[1]:
                        self.manifests.append(decode_manifest(frame[1]))
                    if isinstance(message, Ping):
                        await self._send([encode_frame(Pong())])
                    for reply, payload in self._answer(message):
                        await self._send([encode_frame(reply, payload), payload])
        except OSError:
            pass
        finally:
            self.ended.set()

    async def _send(self, pieces: Sequence[bytes]) -> None:
        await self._link.send([piece for piece in pieces if piece])

    # --- for tests, from their thread -----------------------------------------------------------

    def raw(self, *pieces: bytes, within: float = PATIENCE_S) -> None:
        """Send these bytes; what the other side has closed takes them too."""
        with contextlib.suppress(OSError):
            self._member.do(self._send(pieces), within=within)

    def say(self, message: AnyMessage, payload: bytes = b"") -> None:
        self.raw(encode_frame(message, payload), payload)

    def share(self, folder: str = FOLDER, *, sequence: int = 1_000_000) -> None:
        """Take part in a folder with a new index, and know nothing of the other's."""
        self._upto = 0
        self.epoch += 1
        self.say(FolderOffer(folder, self.epoch, sequence, 0, 0))

    def offer(self, *entries: tuple[str, Entry], folder: str = FOLDER) -> None:
        """Put these into the index that it claims to have."""
        after = self._upto
        self._upto += len(entries)
        batch = [(after + at, path, entry) for at, (path, entry) in enumerate(entries, start=1)]
        self.say(IndexBatch(folder, self.epoch, after, self._upto), pack(batch))

    def heard_of(self, kind: type[T]) -> list[T]:
        return [message for message in list(self.heard) if isinstance(message, kind)]

    def index_of(self, path: str) -> Entry:
        self.until(lambda: path in self.index, what=f"“{path}” is told of")
        return self.index[path]

    def until(self, reached: Callable[[], object], *, what: str = "it answered") -> None:
        eventually(reached, within=PATIENCE_S, what=what, every=0.01)

    def is_dropped(self) -> None:
        """Wait until the other side has ended it."""
        assert self.ended.wait(PATIENCE_S), f"it is still heard: {self.heard[-5:]}"

    def goodbye(self) -> str:
        said = self.heard_of(Goodbye)
        return said[-1].reason if said else ""

    def hang_up(self) -> None:
        async def close() -> None:
            if self._reading is not None:
                self._reading.cancel()
                await asyncio.wait([self._reading])
            await self._link.close()

        self._member.do(close())


def supplying(*contents: bytes, lie: bytes | None = None) -> Answer:
    """Answers requests for these contents; with `lie`, by that in place of each."""
    known = {digest(content): content for content in contents}

    def answer(message: AnyMessage) -> Sequence[tuple[AnyMessage, bytes]]:
        if not isinstance(message, ChunkRequest):
            return ()
        found = [known.get(asked) if lie is None else lie for asked in message.digests]
        sizes = tuple(-1 if data is None else len(data) for data in found)
        return [(ChunkReply(message.request, sizes), b"".join(data for data in found if data))]

    return answer
