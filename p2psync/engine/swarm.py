"""A large file that several devices fetch at a time leaves its author about once: each tells the
others which chunks it has already, and serves these.

After BitTorrent (Cohen, "Incentives Build Robustness in BitTorrent", 2003), where too what fewest
have goes first. Every device goes its own way through the file, so that they soon have something
for each other.
"""

import asyncio
from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import blake3

from p2psync.core.bits import bits_of
from p2psync.core.entry import Manifest
from p2psync.core.ids import DeviceID, Digest
from p2psync.core.manifest import offsets_of
from p2psync.engine.session import Session
from p2psync.ports import Clock, StagedPlace
from p2psync.protocol.messages import SWARM, Holding
from p2psync.protocol.wire import RemoteProtocolError

MAX_BITS = 64 * 1024
"""Bytes: of larger files nobody tells."""
_TELL_EVERY_S = 0.1
_SERVED = 2
"""Files that are served from staging: the one that is fetched, and one that is being committed."""
_HELP_EVERY_S = 2.0


class _Told(NamedTuple):
    content: bytes
    has: int
    """Numbers of chunks, as the bits of an integer."""


class Swarm:
    """Of one folder. `help_came` is called when a peer has some of a file of which a part could not
    be had when it was fetched last."""

    def __init__(
        self,
        folder: str,
        clock: Clock,
        sessions: Callable[[], dict[DeviceID, Session]],
        *,
        own: DeviceID,
        help_came: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._sessions = sessions
        self._own = own
        self._help_came = help_came
        self._helped_at = -_HELP_EVERY_S
        self._told: dict[DeviceID, _Told] = {}
        """What each peer said last."""
        self._shares: deque[Share] = deque(maxlen=_SERVED)

    def heard(self, peer: DeviceID, holding: Holding, bits: bytes) -> None:
        """Raises RemoteProtocolError."""
        if len(bits) > MAX_BITS:
            raise RemoteProtocolError("The peer told of more chunks than the protocol allows.")
        before = self._told.get(peer)
        told = self._told[peer] = _Told(holding.content, int.from_bytes(bits, "little"))
        known = before.has if before is not None and before.content == told.content else 0
        for share in self._shares:
            if share.content != told.content:
                continue
            share.stir(peer)
            is_help = share.is_given_up and bool(told.has & ~known & share.lacks)
            if is_help and self._clock.monotonic() >= self._helped_at + _HELP_EVERY_S:
                self._helped_at = self._clock.monotonic()
                self._help_came()

    def forget(self, peer: DeviceID) -> None:
        if self._told.pop(peer, None) is not None:
            for share in self._shares:
                share.stir(peer)

    def begin(
        self,
        content: bytes,
        manifest: Manifest,
        name: str,
        have: Sequence[bool],
        sources: frozenset[DeviceID],
    ) -> "Share":
        """Begin to fetch a file into the staging file `name`; `sources` have all of it."""
        for share in [share for share in self._shares if share.content == content]:
            self._shares.remove(share)
        share = Share(self, content, manifest, name, sources, seed=self._own)
        share.got(chunk.digest for chunk, known in zip(manifest, have, strict=True) if known)
        self._shares.append(share)
        if any(have):
            share.tell()
        return share

    def committed(self) -> None:
        """What was fetched to its end has been placed, and is served from there."""
        for share in [share for share in self._shares if not share.lacks]:
            self._shares.remove(share)

    def place_of(self, digest: Digest) -> StagedPlace | None:
        """Where a chunk lies of a file that is not committed yet. For any thread."""
        places = (share.place_of(digest) for share in list(self._shares))
        return next((place for place in places if place is not None), None)

    def told_of(self, content: bytes) -> dict[DeviceID, int]:
        return {peer: told.has for peer, told in self._told.items() if told.content == content}

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
        *,
        seed: bytes,
    ) -> None:
        self.content = content
        self._seed = seed
        self.is_given_up = False
        """Whether it was fetched, but not all of it could be had."""
        self._swarm = swarm
        self._name = name
        self._has = 0
        self._all = (1 << len(manifest)) - 1
        self._first: dict[Digest, int] = {}
        self._again: dict[Digest, list[int]] = defaultdict(list)
        """Of chunks that are in the file more than once: where they come again."""
        for number, chunk in enumerate(manifest):
            if self._first.setdefault(chunk.digest, number) != number:
                self._again[chunk.digest].append(number)
        self._offsets = array("Q", offsets_of(manifest))
        self._sizes = array("Q", (chunk.size for chunk in manifest))
        self._is_told = len(manifest) <= 8 * MAX_BITS
        self._told_at = swarm.now()
        self._telling: asyncio.TimerHandle | None = None
        self._news: dict[DeviceID, asyncio.Event] = defaultdict(asyncio.Event)
        self._told = swarm.told_of(content)
        self._sources = sources

    @property
    def is_wanted_elsewhere(self) -> bool:
        """Whether anyone but the sources may fetch it, now or soon."""
        return self._is_told and any(
            session.peer not in self._sources for session in self._swarm.listeners()
        )

    @property
    def lacks(self) -> int:
        return self._all & ~self._has

    # --- what is here ----------------------------------------------------------------------

    def got(self, digests: Iterable[Digest]) -> None:
        """These chunks are staged and verified."""
        self._has |= bits_of(
            number
            for digest in digests
            for number in (self._first[digest], *self._again.get(digest, ()))
        )
        wait = self._told_at + _TELL_EVERY_S - self._swarm.now()
        if wait <= 0:
            self.tell()
        elif self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(wait, self.tell)

    def end(self) -> None:
        """It is not fetched any more."""
        self.is_given_up = bool(self.lacks)
        self.tell()

    def tell(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if self._is_told:
            self._told_at = self._swarm.now()
            size = (len(self._offsets) + 7) // 8
            self._swarm.tell(self.content, self._has.to_bytes(size, "little"), but=self._sources)

    def place_of(self, digest: Digest) -> StagedPlace | None:
        number = self._first.get(digest)
        if number is None or not self._has >> number & 1:
            return None
        return StagedPlace(self._name, self._offsets[number], self._sizes[number])

    # --- what is elsewhere -----------------------------------------------------------------

    def chance(self, number: int) -> int:
        mixed = blake3.blake3(self._seed + self.content + number.to_bytes(8, "big"))
        return int.from_bytes(mixed.digest(8), "big")

    def number_of(self, digest: Digest) -> int:
        return self._first[digest]

    def told(self) -> Mapping[DeviceID, int]:
        return self._told

    def news_of(self, peer: DeviceID) -> asyncio.Event:
        return self._news[peer]

    def stir(self, peer: DeviceID) -> None:
        """The peer told of something, or is gone."""
        self._told = self._swarm.told_of(self.content)
        self.wake(peer)

    def wake(self, peer: DeviceID) -> None:
        if (news := self._news.pop(peer, None)) is not None:
            news.set()
