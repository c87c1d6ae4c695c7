"""Finding other devices on the local network: mDNS and the beacon side by side.

Holds no policy: what is seen is handed on as it comes, also repeatedly. Everything here is a hint.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Sequence

from p2psync.config import MAX_PAIRING_TTL_S
from p2psync.core.ids import DeviceID
from p2psync.net.beacon import Beacon
from p2psync.net.beacon_exchange import BeaconExchange
from p2psync.net.interfaces import Interface, choose_interfaces, list_interfaces
from p2psync.net.mdns import Mdns
from p2psync.net.sighting import MAX_NAMEPLATE, Sighting, Source

__all__ = ["Discovery", "PairingWindows", "Sighting"]

_GATHER_S = 0.3
"""After the first sighting of a pairing window: time for others of the same nameplate to show, so
that whoever answers first does not hide the one that is meant."""


class PairingWindows:
    """The pairing windows seen of late, the newest sighting first. Bounded in time and number."""

    _MAX_ADDRESSES = 256

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str, int], tuple[float, DeviceID | None]] = {}

    def seen(self, sighting: Sighting, now: float) -> None:
        if sighting.nameplate is None:
            return
        for host, port in reversed(sighting.addresses):  # `of` turns them round again
            key = (sighting.nameplate, host, port)
            self._seen.pop(key, None)
            self._seen[key] = (now, sighting.device)
        while len(self._seen) > self._MAX_ADDRESSES:
            del self._seen[next(iter(self._seen))]

    def withdrawn(self, sighting: Sighting) -> None:
        for host, port in sighting.addresses:
            self._seen.pop((sighting.nameplate or 0, host, port), None)

    def only(self, device: DeviceID, nameplate: int | None) -> None:
        """Forget the windows known to be of `device`, but for the one it has open now, if any."""
        of_device = [key for key, (_, of) in self._seen.items() if of == device]
        for key in of_device:
            if key[0] != nameplate:
                del self._seen[key]

    def of(self, nameplate: int, now: float) -> list[tuple[str, int]]:
        return [
            (host, port)
            for (number, host, port), (at, _) in reversed(self._seen.items())
            if number == nameplate and now - at <= MAX_PAIRING_TTL_S
        ]


class Discovery:
    """Announces this device and reports every other one that is seen.

    `interfaces` are names or addresses (see `choose_interfaces`), None for all; nothing is sent to
    or taken from others. `sign` is Ed25519 with the key of `public_key` (raw, 32 bytes).
    `on_sighting` gets what is seen of other devices, also repeatedly; `on_problem(source,
    sentence)` is called when "mdns" or "beacon" stops working and, with None, when it works again.
    Both are called on the event loop, from within `run`, and must neither block nor raise.
    """

    def __init__(
        self,
        device: DeviceID,
        public_key: bytes,
        sign: Callable[[bytes], bytes],
        *,
        interfaces: Sequence[str] | None,
        on_sighting: Callable[[Sighting], None],
        on_problem: Callable[[Source, str | None], None],
        beacon_port: int,
        mdns: bool = True,
        beacon: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_sighting = on_sighting
        self._on_problem = on_problem
        self._clock = clock
        self._problems: dict[Source, str] = {}
        self._windows = PairingWindows()
        self._window_seen = asyncio.Event()
        self._mdns: Mdns | None = None
        self._beacon: BeaconExchange | None = None

        def chosen() -> tuple[Interface, ...]:
            return choose_interfaces(list_interfaces(), interfaces)

        if mdns:
            self._mdns = Mdns(
                device,
                interfaces=chosen,
                on_sighting=self._seen,
                on_withdrawn=self._windows.withdrawn,
                on_problem=functools.partial(self._note_problem, "mdns"),
            )
        if beacon:
            self._beacon = BeaconExchange(
                public_key,
                sign,
                interfaces=chosen,
                on_beacon=self._heard,
                on_problem=functools.partial(self._note_problem, "beacon"),
                port=beacon_port,
                clock=clock,
            )

    async def run(self) -> None:
        """Until cancelled; leaving takes up to a second, as it says goodbye."""
        async with asyncio.TaskGroup() as tasks:
            for part in self._parts():
                tasks.create_task(part.run())

    def announce(self, port: int) -> None:
        """Tell the port of the sync endpoint, before or during `run`, and again when it changes."""
        for part in self._parts():
            part.announce(port)

    def announce_pairing(self, nameplate: int, port: int) -> None:
        """Tell of an open pairing window in place of any before. The nameplate is 1-65535."""
        if not 0 < nameplate <= MAX_NAMEPLATE:
            raise ValueError(f"no nameplate: {nameplate}")
        for part in self._parts():
            part.announce_pairing(nameplate, port)

    def withdraw_pairing(self) -> None:
        for part in self._parts():
            part.withdraw_pairing()

    async def find_pairing(
        self,
        nameplate: int,
        timeout: float,  # noqa: ASYNC109 - not finding one is no error
    ) -> list[tuple[str, int]]:
        """Where pairing windows of that nameplate are, those seen last first.

        Asks the network and waits up to `timeout` seconds; empty where none was seen by then. Any
        of them may be an impostor's: all are to be tried.
        """
        found = self._windows.of(nameplate, self._clock())
        if found:
            return found
        if self._beacon is not None:
            self._beacon.ask()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self._windows.of(nameplate, self._clock()):
                    self._window_seen.clear()
                    await self._window_seen.wait()
                await asyncio.sleep(_GATHER_S)
        return self._windows.of(nameplate, self._clock())

    def _parts(self) -> list[Mdns | BeaconExchange]:
        return [part for part in (self._mdns, self._beacon) if part is not None]

    def _heard(self, beacon: Beacon, host: str) -> None:
        device = beacon.device
        if beacon.port:
            self._seen(Sighting(device, ((host, beacon.port),), "beacon"))
        window = beacon.nameplate if beacon.pairing_port else 0
        self._windows.only(device, window or None)
        if window:
            self._seen(Sighting(device, ((host, beacon.pairing_port),), "beacon", window))

    def _seen(self, sighting: Sighting) -> None:
        if sighting.nameplate is not None:
            self._windows.seen(sighting, self._clock())
            self._window_seen.set()
        self._on_sighting(sighting)

    def _note_problem(self, source: Source, sentence: str | None) -> None:
        """Hand on changes only: the parts say how they are whenever they notice."""
        if self._problems.get(source) == sentence:
            return
        if sentence is None:
            del self._problems[source]
        else:
            self._problems[source] = sentence
        self._on_problem(source, sentence)
