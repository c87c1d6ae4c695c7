"""Plays the schedule of a seed: chaos, then order, and what must be true then."""

import asyncio
import contextlib
import gc
import logging
import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from p2psync.config import BrakesConfig
from p2psync.core.ids import short_device_id
from p2psync.core.roster import Roster
from p2psync.engine.conflicts import find_conflicts
from p2psync.protocol.wire import FrameReader
from tests.simulation.coda import Coda
from tests.simulation.device import Device
from tests.simulation.faults import Faults
from tests.simulation.loop import LIFE, EndlessError
from tests.simulation.mix import Mix, draw_mix, edges
from tests.simulation.network import SimulatedLink
from tests.simulation.trace import ViolationError
from tests.simulation.user import NAMES, User
from tests.simulation.world import World, opened_world

NAMES_OF_DEVICES = ("ada", "bob", "cyd", "dan", "eve", "fay", "gil", "hal")
_LONGEST_S = 900.0
"""From when all is put right until everything must be at rest."""
_POLL_S = 0.7
_ACTS_BETWEEN_PARTS = 0.5
"""The share of the parts of walks, which are few, between which a user acts who interferes."""
_MOST_INTERFERENCES = 2400
"""In one schedule, by the number of its devices, each of which has to follow. Users who answer each
step of each device would make more steps than they answer: then their acts, and not the devices,
would go on for ever."""
_PATIENCE_S = 100.0
"""Then people put back from a backup what no device has any more."""


@dataclass
class Outcome:
    seed: int
    violation: str | None = None
    lines: list[str] = field(default_factory=list)
    digest: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    mix: Mix = field(default_factory=Mix)
    converged_s: float = 0.0


def play(
    seed: int,
    *,
    devices: int | None = None,
    change: Callable[[Mix], None] | None = None,
    shows_messages: bool = False,
) -> Outcome:
    """`change` may make of the seed's mix another one."""
    outcome = Outcome(seed)
    # What a crash left is closed when nothing needs it any more; what that says tells nothing.
    sys.unraisablehook = lambda _: None
    logging.getLogger("p2psync").propagate = False
    logging.getLogger("p2psync").addHandler(logging.NullHandler())
    # A collection looks at everything, which costs as much as a tenth of a schedule.
    gc.disable()
    try:
        with opened_world(seed) as world:
            outcome.mix = draw_mix(world.source, devices=devices)
            if change is not None:
                change(outcome.mix)
            schedule = _Schedule(world, outcome.mix, shows_messages=shows_messages)
            outcome.violation = schedule.run()
            outcome.converged_s = schedule.converged_s
            outcome.lines = world.trace.lines
            outcome.digest = world.trace.digest()
            outcome.counts = world.trace.counts
    finally:
        gc.enable()
        if seed % 8 == 0:
            gc.collect()
    return outcome


class _Schedule:
    def __init__(self, world: World, mix: Mix, *, shows_messages: bool) -> None:
        self._world, self._mix = world, mix
        self._readers: dict[SimulatedLink, FrameReader] | None = {} if shows_messages else None
        self._source = world.source
        self._loop, self._trace = world.loop, world.trace
        self._names: dict[bytes, str] = {}
        self._user = User(world.oracle, self._source, world.trace, large=mix.large)
        self._faults = Faults(world, mix, self._source)
        self.converged_s = 0.0

    def run(self) -> str | None:
        self._loop.set_exception_handler(self._unhandled)
        try:
            self._loop.run_until_complete(self._play())
            self._trace.check()
        except ViolationError as error:
            return str(self._trace.violations[0] if self._trace.violations else error)
        except EndlessError:
            return "P11 the devices work on and on"
        except Exception:
            return f"the simulation failed: {traceback.format_exc()}"
        return None

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, details: dict[str, Any]) -> None:
        error = details.get("exception")
        life = LIFE.get(None)
        name = life.name if life is not None else ""
        told = "".join(traceback.format_exception(error)) if error is not None else ""
        self._trace.violation(f"unhandled at {name}: {details.get('message')} {told}")

    async def _play(self) -> None:
        self._make_devices()
        self._make_files()
        for device in self._world.devices:
            device.start()
        if self._source.random() < 0.5:
            await asyncio.sleep(2.0)
        await self._chaos()
        self._trace.say("all is put right")
        self._loop.count_anew()
        await self._faults.put_right()
        await self.settle()
        await Coda(self._world, self._mix, self._user, self.settle).run()
        self._trace.check()

    def _make_devices(self) -> None:
        mix, world = self._mix, self._world
        self._loop.timer_jitter_s = mix.timer_jitter_s
        world.network.latency_s = mix.latency_s
        world.network.on_send = self._sent
        brakes = BrakesConfig(mix.brakes, 0) if mix.brakes else BrakesConfig()
        for number in range(mix.devices):
            name = NAMES_OF_DEVICES[number]
            device = Device(
                name,
                number,
                world.directory / name,
                world.network,
                world.oracle,
                random.Random(self._source.random()),
                granularity_ns=mix.granularity_ns,
                scan_interval_s=mix.scan_interval_s,
                brakes=brakes,
            )
            device.slowness_s = mix.slowness_s * self._source.choice((0.5, 1.0, 4.0))
            device.events_lost = mix.events_lost
            if mix.skew_ns:
                device.clock.ahead_ns = self._source.choice((-1, 0, 1)) * mix.skew_ns
            if mix.interference:
                device.disk.before_step = self._interferer(device)
                device.disk.before_part = self._interferer_with_walks(device)
            world.devices.append(device)
            self._names[device.id] = name
        _pair(world.devices)
        reachable = edges(mix)
        for one, device in enumerate(world.devices):
            for two, other in enumerate(world.devices):
                if frozenset((one, two)) in reachable and one != two:
                    device.store.known[other.id] = [(other.host, other.port, None)]
                elif one != two:
                    world.network.unconnectable.add(frozenset((device.id, other.id)))

    def _sent(self, link: SimulatedLink, data: bytes) -> None:
        ends = f"{self._names[link.owner]} > {self._names[link.peer]}:"
        if self._readers is None:
            self._trace.say(f"{ends} {len(data)} bytes")
            return
        reader = self._readers.setdefault(link, FrameReader())
        reader.feed(data)
        while (frame := reader.next_frame()) is not None:
            self._trace.say(f"{ends} {frame[0]}")

    def _interferer(self, device: Device) -> Callable[[Any], None]:
        def interfere(step: Any) -> None:
            if self._interferes(self._mix.interference):
                self._trace.count("interferences", device.name)
                self._user.interfere(device, step)

        return interfere

    def _interferer_with_walks(self, device: Device) -> Callable[[], None]:
        def interfere() -> None:
            if self._interferes(_ACTS_BETWEEN_PARTS):
                self._trace.count("interferences", device.name)
                self._user.act(device)

        return interfere

    def _interferes(self, chance: float) -> bool:
        most = _MOST_INTERFERENCES // self._mix.devices
        is_tired = self._trace.counts["interferences"] >= most
        return not is_tired and self._source.random() < chance

    def _make_files(self) -> None:
        count = self._source.randrange(6)
        for path in self._source.sample(NAMES[:8], count):
            content = self._user.new_content()
            for device in self._world.devices:
                if self._mix.equal_start or device is self._world.devices[0]:
                    self._user.write(device, path, content)
            if self._mix.equal_start:
                # Each writes it anew, and a deletion by one does not win over the others.
                self._world.oracle.moved(content)

    # --- chaos -------------------------------------------------------------------------------

    async def _chaos(self) -> None:
        rates = self._mix.rates()
        kinds = ["operation", *rates]
        weights = [self._mix.operations, *rates.values()]
        end = self._loop.time() + self._mix.seconds
        while True:
            await asyncio.sleep(self._source.expovariate(sum(weights)))
            if self._loop.time() >= end:
                return
            kind = self._source.choices(kinds, weights)[0]
            if kind == "operation":
                device = self._source.choice(self._world.devices)
                for _ in range(self._source.choice((1, 1, 1, 2, 4))):
                    if not device.disk.root_is_lost:
                        self._user.act(device)
            else:
                self._faults.strike(kind)
            self._trace.check()

    # --- order -------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Until all are at rest and alike."""
        began = self._loop.time()
        told = ""
        while self._loop.time() - began < _LONGEST_S:
            await asyncio.sleep(_POLL_S)
            self._trace.check()
            if self._mix.brakes:
                self._approve()
            told = await self._unrest()
            if not told:
                break
            if self._mix.rot and self._loop.time() - began > _PATIENCE_S:
                # A file that moved with its directory is not read before.
                await self._faults.verify()
                for device, path in self._faults.beyond_mending():
                    self._user.restore(device, path)
        else:
            self._trace.violation(f"P11 no rest {_LONGEST_S:.0f} s after all was put right: {told}")
        self.converged_s = max(self.converged_s, self._loop.time() - began)
        trees = {device.name: device.disk.tree() for device in self._world.devices}
        self._world.oracle.check(trees)
        self._trace.counts["needless_copies"] += await _needless_copies(self._world.devices[0])
        self._trace.say("at rest")
        self._trace.check()

    def _approve(self) -> None:
        for device in self._world.devices:
            if device.is_ready:
                folder = device.folder
                if folder.local.braked or folder._puller.deletions.waiting:
                    folder.approve()

    async def _unrest(self) -> str:
        """Why there is no rest yet."""
        first, *others = self._world.devices
        tree = first.disk.tree()
        for device in others:
            differing = sorted(path for path, _ in _differences(tree, device.disk.tree()))
            if differing:
                return f"{first.name} and {device.name} differ: {differing[:6]}"
            for path, shown in tree.items():
                if isinstance(shown, bytes):
                    executable = first.disk.is_executable(path), device.disk.is_executable(path)
                    if executable[0] != executable[1]:
                        return f"{first.name} and {device.name} differ in the mode of {path}"
        for device in self._world.devices:
            if told := await _why_not_idle(device):
                return f"{device.name}: {told}"
        return ""


async def _needless_copies(device: Device) -> int:
    rows = await find_conflicts(device.folder.index)
    return sum(row.is_needless for row in rows)


def _pair(devices: list[Device]) -> None:
    """Each other one with the first, as people do."""
    first, *others = devices
    roster = _group(first, devices)
    for device in others:
        roster = roster.merge(_group(device, [device, first]).statements, first.own)
    for device in devices:
        device.store.body = Roster().merge(roster.statements, device.own).encode()


def _group(device: Device, members: list[Device]) -> Roster:
    roster = Roster()
    for member in members:
        roster = roster.add(device.own, certificate=member.own.certificate, name=member.name)
    return roster


def _differences(one: dict[str, Any], other: dict[str, Any]) -> set[tuple[str, Any]]:
    return set(one.items()) ^ set(other.items())


async def _why_not_idle(device: Device) -> str:
    if not device.is_ready:
        return "is not up"
    with contextlib.suppress(Exception):
        reasons = await device.folder.waiting_for(device.membership.name_of)
        problems = [f"{one.path}: {one.reason}" for one in device.folder.all_problems()]
        if not device.folder._working:
            return "is paused"
        # Whose index was lost knows of nobody to wait for until it hears of them.
        if any(not exchange.theirs.epoch for exchange in device.folder._exchanges.all()):
            return "has not heard of all indexes"
        wanted = [
            f"wanted {each.path} {each.held.entry if each.held else None} <- "
            + ", ".join(f"{offer.entry} of {short_device_id(offer.peer)}" for offer in each.offers)
            for tombstones in (False, True)
            for each in await device.folder.index.wanted(limit=3, tombstones=tombstones)
        ]
        return "; ".join(reasons + problems + wanted) if reasons else ""
    return "does not answer"
