"""Keeps this device connected to the other members: one task for each dials whenever there is no
session, with growing pauses, and at once when a new address of it is heard of."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from p2psync.core.backoff import pause
from p2psync.core.ids import DeviceID, short_device_id
from p2psync.engine.addresses import AddressBook
from p2psync.errors import P2psyncError
from p2psync.ports import Address, Clock, Dialer, DialRefusedError, Link, Randomness

_DIAL_S = 4.0
_SECOND_S = 0.1
"""The device with the greater ID dials so much later: where both can, one link is enough. Far from
one another they may make two, of which one is closed."""
_LASTING_S = 5.0
_DIALS_AT_ONCE = 64
"""Bounds descriptors, however many devices a member says there are."""
_ROUND_S = 0.5
"""Anyone on the network can announce new addresses of a device; so often they are tried."""

_log = logging.getLogger(__name__)


class Dialing:
    """`serve` takes over each link that came about and returns when it has ended; `is_connected`
    tells whether a session with the device exists; `reached` hears of addresses that worked."""

    def __init__(
        self,
        own: DeviceID,
        dialer: Dialer,
        book: AddressBook,
        clock: Clock,
        randomness: Randomness,
        *,
        is_connected: Callable[[DeviceID], bool],
        serve: Callable[[Link], Awaitable[None]],
        reached: Callable[[DeviceID, Address], Awaitable[None]],
    ) -> None:
        self._own = own
        self._dialer = dialer
        self._book = book
        self._clock = clock
        self._randomness = randomness
        self._is_connected = is_connected
        self._serve = serve
        self._reached = reached
        self._wakes: dict[DeviceID, asyncio.Event] = {}
        self._ends: dict[DeviceID, asyncio.Event] = {}
        self._tasks: dict[DeviceID, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._room = asyncio.Semaphore(_DIALS_AT_ONCE)
        self.refused: dict[DeviceID, str] = {}
        """Members of which the last try ended in a refusal, and the sentence that says so."""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for device in list(self._wakes):
                    self._start(device)
                await asyncio.Event().wait()
            finally:
                # Whoever joins while this ends is dialed after the next start.
                self._group = None

    def set_members(self, members: set[DeviceID]) -> None:
        for device in self._wakes.keys() - members:
            del self._wakes[device], self._ends[device]
            self.refused.pop(device, None)
            if (task := self._tasks.pop(device, None)) is not None:
                task.cancel()
        for device in members - self._wakes.keys():
            self._wakes[device], self._ends[device] = asyncio.Event(), asyncio.Event()
            self._start(device)

    def wake(self, device: DeviceID) -> None:
        """Try now: an address is new."""
        if (event := self._wakes.get(device)) is not None:
            event.set()

    def ended(self, device: DeviceID) -> None:
        """The session with the device is over."""
        if (event := self._ends.get(device)) is not None:
            event.set()

    def _start(self, device: DeviceID) -> None:
        if self._group is not None:
            # Ends when the device is no longer a member, or with `run`.
            self._tasks[device] = self._group.create_task(self._keep_connected(device))

    async def _keep_connected(self, device: DeviceID) -> None:
        wake, ended = self._wakes[device], self._ends[device]
        failures = 0
        if self._own > device:
            await asyncio.sleep(_SECOND_S)
        while True:
            wake.clear()
            began = self._clock.monotonic()
            if self._is_connected(device):
                ended.clear()
                await ended.wait()
                wake.clear()
                came_about = True
            else:
                came_about = await self._try_all(device)
            lasted = self._clock.monotonic() - began
            if came_about and (self._is_connected(device) or lasted > _LASTING_S):
                failures = 0
                continue
            # Also after a session that ended as soon as it began, whoever dialled: not to make it
            # anew in a circle.
            failures += 1
            chance = int.from_bytes(self._randomness(4)) / (1 << 32)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause(failures, chance)):
                    await wake.wait()
            await asyncio.sleep(began + _ROUND_S - self._clock.monotonic())

    async def _try_all(self, device: DeviceID) -> bool:
        """Whether a link came about; returns when it has ended."""
        refusal = None
        for address in self._book.candidates(device):
            if self._is_connected(device):
                return True
            try:
                async with self._room:
                    link = await self._dialer.dial(*address, expect=device, timeout=_DIAL_S)
            except DialRefusedError as error:
                refusal = str(error)
            except P2psyncError as error:
                _log.debug("dial failed device=%s reason=%s", short_device_id(device), error)
            else:
                self.refused.pop(device, None)
                await self._reached(device, address)
                await self._serve(link)
                return True
        if refusal is not None and self.refused.get(device) != refusal:
            _log.warning("dial refused device=%s reason=%s", short_device_id(device), refusal)
            self.refused[device] = refusal
        return False
