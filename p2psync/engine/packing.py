"""Compresses what one session sends of chunks, while that makes them arrive earlier.

Everything that the decision needs is measured: the rate of the link where it is sent to, the speed
where it is compressed, the ratio on the first chunks of each reply.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from p2psync.core.compression import LinkRate, Speed, may_pay, pays
from p2psync.ports import Clock
from p2psync.protocol.chunks import packer
from p2psync.protocol.messages import MISSING

_SAMPLE = 64 * 1024
"""Bytes of a reply that are compressed before it is known whether that pays."""
_PAUSE = 16
"""Replies that are sent as they are after one for which it did not pay."""


class Packed(NamedTuple):
    payload: Sequence[bytes]
    lengths: tuple[int, ...]
    """As `ChunkReply.packed`: none where everything is as it was."""
    speed: Speed


class Attempt:
    """At compressing one reply."""

    def __init__(self, clock: Clock, rate: float, speed: Speed) -> None:
        self._clock = clock
        self._rate = rate
        self._speed = speed

    def pack(self, chunks: Sequence[bytes | None]) -> Packed:
        """Runs in a worker thread."""
        present = [chunk for chunk in chunks if chunk]
        totals = accumulate(len(chunk) for chunk in present)
        count = 1 + sum(total < _SAMPLE for total in totals)
        sample, rest = present[:count], present[count:]
        shrunk = self._shrink(sample)
        ratio = sum(map(len, shrunk)) / max(1, sum(map(len, sample)))
        if not pays(self._rate, self._speed.value, ratio):
            return Packed(present, (), self._speed)
        pieces = shrunk + self._shrink(rest)
        lengths = iter(map(len, pieces))
        return Packed(
            pieces,
            tuple(MISSING if c is None else next(lengths) if c else 0 for c in chunks),
            self._speed,
        )

    def _shrink(self, chunks: Sequence[bytes]) -> list[bytes]:
        """What would not get smaller stays as it is, also where the length would be the same: the
        length alone tells the receiver which it is."""
        pack = packer()
        began = self._clock.monotonic()
        shrunk = [min(chunk, pack(chunk), key=len) for chunk in chunks]
        seconds = self._clock.monotonic() - began
        self._speed = self._speed.after(sum(map(len, chunks)), seconds)
        return shrunk


class Packing:
    """What is known of one session's link."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rate = LinkRate()
        self._speed = Speed()
        self._pause = 0

    def sent(self, size: int, seconds: float) -> None:
        """The link took so many bytes within that time."""
        self._rate.add(size, seconds, self._clock.monotonic())

    def attempt(self) -> Attempt | None:
        """For the next reply; None where it is to be sent as it is."""
        rate = self._rate.value(self._clock.monotonic())
        if rate is None or not may_pay(rate):
            return None
        if self._pause:
            self._pause -= 1
            return None
        return Attempt(self._clock, rate, self._speed)

    def learn(self, packed: Packed) -> None:
        """What came of an attempt."""
        self._speed = packed.speed
        if not packed.lengths:
            self._pause = _PAUSE
