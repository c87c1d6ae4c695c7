"""A large file that several devices fetch at a time leaves its author about once: each tells the
others which chunks it has already, and serves these.

After BitTorrent (Cohen, "Incentives Build Robustness in BitTorrent", 2003), where too what fewest
have goes first. Every device begins elsewhere in the file, so that they soon have something for
each other.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import blake3

from p2psync.core.entry import Manifest
from p2psync.core.ids import DeviceID, Digest
from p2psync.engine.session import Session
from p2psync.ports import Clock, StagedPlace
from p2psync.protocol.messages import SWARM, Holding
from p2psync.protocol.wire import RemoteProtocolError

MAX_BITS = 64 * 1024
"""Bytes: of larger files nobody tells."""
_TELL_EVERY_S = 0.1
_SERVED = 2
"""Files that are served from staging: the one that is fetched, and one that is being committed."""


class _Told(NamedTuple):
    content: bytes
    bits: bytes

    def has(self, number: int) -> bool:
        at = number >> 3
        return at < len(self.bits) and bool(self.bits[at] >> (number & 7) & 1)


class Swarm:
    """Of one folder."""

    def __init__(
        self,
        folder: str,
        clock: Clock,
        sessions: Callable[[], dict[DeviceID, Session]],
        *,
        own: DeviceID,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._sessions = sessions
        self._own = own
        self._told: dict[DeviceID, _Told] = {}
        """What each peer said last."""
        self._shares: deque[Share] = deque(maxlen=_SERVED)

    def heard(self, peer: DeviceID, holding: Holding, bits: bytes) -> None:
        """Raises RemoteProtocolError."""
        if len(bits) > MAX_BITS:
            raise RemoteProtocolError("The peer told of more chunks than the protocol allows.")
        self._told[peer] = _Told(holding.content, bits)
        self._stir()

    def forget(self, peer: DeviceID) -> None:
        if self._told.pop(peer, None) is not None:
            self._stir()

    def _stir(self) -> None:
        for share in self._shares:
            share.stir()

    def begin(
        self,
        content: bytes,
        manifest: Manifest,
        name: str,
        have: Sequence[bool],
        sources: frozenset[DeviceID],
    ) -> "Share":
        """Begin to fetch a file into the staging file `name`; `sources` have all of it."""
        share = Share(self, content, manifest, name, sources)
        share.got(chunk.digest for chunk, known in zip(manifest, have, strict=True) if known)
        self._shares.append(share)
        return share

    def place_of(self, digest: Digest) -> StagedPlace | None:
        """Where a chunk lies of a file that is not committed yet."""
        places = (share.place_of(digest) for share in self._shares)
        return next((place for place in places if place is not None), None)

    def order(self, digest: Digest) -> bytes:
        """To sort by: another order on each device."""
        return blake3.blake3(self._own + digest).digest(8)

    def told_of(self, content: bytes) -> dict[DeviceID, _Told]:
        return {peer: told for peer, told in self._told.items() if told.content == content}

    def listeners(self) -> list[Session]:
        return [one for one in self._sessions().values() if SWARM in one.features]

    def tell(self, content: bytes, bits: bytes, *, but: frozenset[DeviceID]) -> None:
        for session in self.listeners():
            if session.peer not in but:
                session.post(Holding(self._folder, content), bits)

    def now(self) -> float:
        return self._clock.monotonic()


class Share:
    """One file that is fetched here, and who else fetches it: `fetch.Others`."""

    def __init__(
        self,
        swarm: Swarm,
        content: bytes,
        manifest: Manifest,
        name: str,
        sources: frozenset[DeviceID],
    ) -> None:
        self._swarm = swarm
        self._content = content
        self._name = name
        self._bits = bytearray((len(manifest) + 7) // 8)
        self._numbers: dict[Digest, list[int]] = defaultdict(list)
        self._offsets: dict[Digest, tuple[int, int]] = {}
        at = 0
        for number, chunk in enumerate(manifest):
            self._numbers[chunk.digest].append(number)
            self._offsets[chunk.digest] = (at, chunk.size)
            at += chunk.size
        self._is_told = len(manifest) <= 8 * MAX_BITS
        self._told_at = swarm.now()
        self._news = asyncio.Event()
        self._told = swarm.told_of(content)
        self._sources = sources

    @property
    def is_wanted_elsewhere(self) -> bool:
        """Whether anyone but the sources may fetch it, now or soon."""
        return self._is_told and any(
            session.peer not in self._sources for session in self._swarm.listeners()
        )

    # --- what is here ----------------------------------------------------------------------

    def got(self, digests: Iterable[Digest]) -> None:
        """These chunks are staged and verified."""
        for digest in digests:
            for number in self._numbers[digest]:
                self._bits[number >> 3] |= 1 << (number & 7)
        if self._swarm.now() >= self._told_at + _TELL_EVERY_S:
            self.tell()

    def tell(self) -> None:
        if self._is_told:
            self._told_at = self._swarm.now()
            self._swarm.tell(self._content, bytes(self._bits), but=self._sources)

    def place_of(self, digest: Digest) -> StagedPlace | None:
        numbers = self._numbers.get(digest)
        if not numbers or not self._bits[numbers[0] >> 3] >> (numbers[0] & 7) & 1:
            return None
        offset, size = self._offsets[digest]
        return StagedPlace(self._name, offset, size)

    # --- what is elsewhere -----------------------------------------------------------------

    def number_of(self, digest: Digest) -> int:
        return self._numbers[digest][0]

    def order(self, digest: Digest) -> bytes:
        return self._swarm.order(digest)

    def hold(self, peer: DeviceID, number: int) -> bool:
        told = self._told.get(peer)
        return told is not None and told.has(number)

    def holders(self, number: int) -> list[DeviceID]:
        return [peer for peer, told in self._told.items() if told.has(number)]

    def news(self) -> asyncio.Event:
        return self._news

    def stir(self) -> None:
        self._told = self._swarm.told_of(self._content)
        self._news.set()
        self._news = asyncio.Event()
