"""After all came to rest: what can be said exactly of changes that start from there, and that rest
is rest."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from p2psync.protocol.messages import FolderDigest, Ping, Pong
from p2psync.protocol.wire import FrameReader
from tests.simulation.device import Device
from tests.simulation.mix import Mix
from tests.simulation.network import SimulatedLink
from tests.simulation.oracle import copies
from tests.simulation.user import User
from tests.simulation.world import World

_HOUSEKEEPING_S = 125.0
"""In which each device has told others a digest, and dropped what nobody needs."""
_WATCHED_S = 65.0
_PASSING_S = 40.0
"""For a small file, through all devices."""


class Coda:
    def __init__(
        self, world: World, mix: Mix, user: User, settle: Callable[[], Awaitable[None]]
    ) -> None:
        self._world, self._mix, self._user, self._settle = world, mix, user, settle
        self._source = world.source
        self._told: set[tuple[SimulatedLink, FolderDigest]] = set()

    async def run(self) -> None:
        if self._mix.events_lost:
            # A touch that nobody was told of does not show.
            await asyncio.sleep(2.0 * self._mix.scan_interval_s)
            await self._settle()
        # So that the time of the last read has passed, also where it is told in seconds.
        await asyncio.sleep(self._mix.granularity_ns / 1e9 * 2.0)
        if self._source.random() < 0.5:
            await self._change_from_rest()
        if self._source.random() < 0.2:
            await self._meet_an_unreadable_file()
        if self._source.random() < 0.3:
            await self._watch_rest()

    # --- P3 and P20 --------------------------------------------------------------------------

    async def _change_from_rest(self) -> None:
        """Several devices change a path at once, none knowing of the others."""
        devices = self._world.devices
        tree = devices[0].disk.tree()
        files = sorted(
            path for path, shown in tree.items() if isinstance(shown, bytes) and "(" not in path
        )
        new = f"new {self._source.randrange(100)}"
        path = self._source.choice([new, *files])
        acting = self._source.sample(devices, self._source.randint(1, min(3, len(devices))))
        before, dots = copies(tree), self._world.oracle.new_dots
        contents: set[bytes] = set()
        acts: Counter[str] = Counter()
        same = self._user.new_content()
        for device in acting:
            kind = self._source.choice(("write", "write", "same", "remove", "chmod"))
            if path not in tree and kind in ("remove", "chmod"):
                kind = "write"
            if kind == "chmod" and device.disk.is_executable(path):
                kind = "remove"
            acts[kind] += 1
            self._act(device, kind, path, same, contents)
        self._world.trace.say(f"from rest: {path} {dict(acts)}")
        await self._settle()
        after = devices[0].disk.tree()
        made = copies(after) - before
        least = max(0, len(contents) - 1)
        # A copy's name is of the write that made it: equal contents that lose to a third, and meet
        # it one by one, leave a copy each.
        most = max(least, acts["write"] + acts["same"] - 1) if acts["write"] else least
        if not least <= made.total() <= most:
            self._world.trace.violation(
                f"P3 {made.total()} copies and not {least} of {path} after {dict(acts)}"
            )
        changes = self._world.oracle.new_dots - dots
        # Fewer where a deletion arrives before the same one here is noticed.
        if changes > len(acting):
            self._world.trace.violation(
                f"P20 {len(acting)} changes of {path} made {changes} versions: {dict(acts)}"
            )
        self._world.trace.check()

    def _act(self, device: Device, kind: str, path: str, same: bytes, contents: set[bytes]) -> None:
        match kind:
            case "write":
                content = self._user.new_content()
                contents.add(content)
                self._user.write(device, path, content)
            case "same":
                contents.add(same)
                self._user.write(device, path, same)
                self._world.oracle.moved(same)
            case "remove":
                self._user.remove(device, path)
            case "chmod":
                self._user.make_executable(device, path)

    # --- P18 ---------------------------------------------------------------------------------

    async def _meet_an_unreadable_file(self) -> None:
        """The others pass it, and nobody says that all is in sync meanwhile."""
        devices = self._world.devices
        device = self._source.choice(devices)
        trace = self._world.trace
        bad, good = (f"{word} {self._source.randrange(1000)}" for word in ("bad", "good"))
        device.disk.fail("hash_file", bad)
        self._user.write(device, bad)
        self._user.write(device, good)
        await asyncio.sleep(_PASSING_S)
        for other in devices:
            if good not in other.disk.tree():
                trace.violation(f"P18 {good} of {device.name} does not pass {bad} to {other.name}")
        if await device.is_at_rest():
            trace.violation(f"P18 {device.name} says that it is in sync, but nobody has {bad}")
        device.disk.mend()
        await self._settle()

    # --- P11: rest ---------------------------------------------------------------------------

    async def _watch_rest(self) -> None:
        await asyncio.sleep(_HOUSEKEEPING_S)
        self._world.trace.check()
        before = self._state()
        readers: dict[SimulatedLink, FrameReader] = {}
        self._world.network.on_send = lambda link, data: self._hear(
            readers.setdefault(link, FrameReader()), link, data
        )
        await asyncio.sleep(_WATCHED_S)
        if self._state() != before:
            self._world.trace.violation(f"P11 there is no rest: {before} became {self._state()}")
        for device in self._world.devices:
            if left := device.disk.staged_names():
                self._world.trace.violation(f"{device.name} keeps staged files: {left}")

    def _state(self) -> list[tuple[int, int]]:
        return [
            (device.index.sequence, device.index.counter)
            for device in self._world.devices
            if device.index is not None
        ]

    def _hear(self, reader: FrameReader, link: SimulatedLink, data: bytes) -> None:
        reader.feed(data)
        while (frame := reader.next_frame()) is not None:
            message = frame[0]
            if isinstance(message, Ping | Pong):
                continue
            # Whoever happened to scan when it was to tell its digest tells it later.
            if isinstance(message, FolderDigest) and (link, message) not in self._told:
                self._told.add((link, message))
                continue
            self._world.trace.violation(f"P11 {message} is sent though all is at rest")
