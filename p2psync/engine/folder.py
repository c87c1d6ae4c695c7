"""One folder at work: finds local changes, pulls what peers hold, tells peers what is held here.

    watcher → LocalChanges → index → Exchange → peers
    peers → Exchange → index → Puller → disk → index → Exchange → peers

Two loops share one lock (`turn`): a long transfer never keeps a local edit from being told. Both
rest while the root is gone, and go on by themselves when it is back.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

from p2psync.core.ids import DeviceID
from p2psync.core.relpath import RelPath
from p2psync.engine.content import Contents
from p2psync.engine.exchanges import Exchanges, FolderMessage, PeerNeed
from p2psync.engine.guard import Guard
from p2psync.engine.housekeeping import Housekeeping
from p2psync.engine.integrity import Integrity
from p2psync.engine.local import Brakes, LocalChanges
from p2psync.engine.mend import Mender
from p2psync.engine.problems import STOPPED, Problems, held_back
from p2psync.engine.pull import Puller
from p2psync.engine.session import Session, SessionClosedError
from p2psync.engine.supplier import Supplier
from p2psync.engine.swarm import Swarm
from p2psync.engine.tasks import together
from p2psync.engine.verify import Schedule, Verifier
from p2psync.errors import P2psyncError
from p2psync.ports import (
    Clock,
    Counts,
    Disk,
    FolderIndex,
    Problem,
    Watcher,
)
from p2psync.protocol.messages import FolderOffer, IndexBatch
from p2psync.protocol.wire import RemoteProtocolError

_ANEW = "The index of a folder is exchanged anew."
_SCANNING, _PULLING, _LISTENING = "scanning", "pulling", "listening"
"""Sources of trouble with the disk that holds the folder, or the index."""

_log = logging.getLogger(__name__)


class State(StrEnum):
    IDLE = "idle"
    SCANNING = "scanning"
    SYNCING = "syncing"
    PAUSED = "paused"
    HALTED = "halted"


class FolderSpec(NamedTuple):
    name: str
    path: str
    """For people."""
    mode: str
    shared_with: frozenset[DeviceID] | None
    """None: every member."""


class Folder:
    """`run` does the work; while it is not running the folder is paused."""

    def __init__(
        self,
        spec: FolderSpec,
        index: FolderIndex,
        disk: Disk,
        clock: Clock,
        *,
        own: DeviceID,
        author: Callable[[], str],
        members: Callable[[], Iterable[DeviceID]],
        brakes: Brakes,
        scan_interval_s: float,
        watcher: Callable[[Callable[[set[RelPath] | None], None]], Watcher],
        verify: Schedule | None = None,
        verifying: asyncio.Lock | None = None,
    ) -> None:
        """`watcher` makes a watcher that reports to the function it is given. Folders that share
        `verifying` are verified one after the other."""
        self.spec = spec
        self.index = index
        self.disk = disk
        self._clock = clock
        self._members = members
        self._scan_interval_s = scan_interval_s
        self.problems = Problems()
        self.turn = asyncio.Lock()
        self._working = False
        self.failed = False
        """Whether `run` ended by a fault of ours, which the log tells; it is about to be tried
        again."""
        self._scanned = False
        """Whether everything was looked at since `run` began: nothing is pulled before."""
        self._failed_at: type[FolderMessage] = IndexBatch
        """What a peer had said when the index could not be used last."""
        self._pull_wake = asyncio.Event()
        self.changed = asyncio.Event()
        """Set whenever anything that `state` or `waiting_for` tell may have changed."""
        self.local = LocalChanges(
            index, disk, clock, self.problems, self.turn, author=author(), brakes=brakes
        )
        self.local.recorded = self._recorded
        self._author = author
        self._guard = Guard(
            spec.name, disk, self.problems, halting=self.changed.set, rescan=self.rescan
        )
        self._integrity = Integrity(
            spec.name,
            index,
            disk,
            clock,
            self.turn,
            edited=self.local.mark,
            damaged=self.may_be_mended,
            recorded=self._recorded,
        )
        swarm = Swarm(
            spec.name,
            clock,
            lambda: self._exchanges.sessions(),
            own=own,
            help_came=self._help_came,
        )
        contents = Contents(spec.name, index, disk, swarm, lambda: self._exchanges.sessions())
        self._puller = Puller(
            index,
            disk,
            clock,
            contents,
            self.local,
            self.problems,
            self.turn,
            own=own,
            brakes=brakes,
            committed=self._recorded,
            suspect=self._integrity.suspect,
        )
        self._mender = Mender(
            index, disk, clock, contents, self.local, self._integrity, self.problems, self.turn
        )
        self.verifier = Verifier(
            spec.name,
            index,
            disk,
            clock,
            self._integrity,
            verify or Schedule(),
            gate=verifying or asyncio.Lock(),
        )
        self._watcher = watcher(self.local.mark)
        self._housekeeping = Housekeeping(
            spec.name,
            index,
            disk,
            self.turn,
            is_at_rest=lambda: self._at_rest,
            exchanges=lambda: self._exchanges.all(),
        )
        self._exchanges = Exchanges(
            spec.name,
            index,
            Supplier(index, disk, self._integrity.suspect, swarm.place_of),
            swarm,
            self,
            self._housekeeping.compare,
        )

    @property
    def name(self) -> str:
        return self.spec.name

    def is_shared_with(self, device: DeviceID) -> bool:
        return self.spec.shared_with is None or device in self.spec.shared_with

    # --- work ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        self._scanned = False
        self.local.mark(None)
        try:
            async with together() as group:
                self._working = True
                self._exchanges.begin(group)
                for work in (
                    self._watcher.run(),
                    self._scan_always(),
                    self._pull_always(),
                    self._integrity.run(),
                    self.verifier.run(),
                    self._housekeeping.run(self._sharers),
                ):
                    group.create_task(work)
        finally:
            self._working = False
            self._exchanges.end()

    async def _scan_always(self) -> None:
        # Or what changes between the scan and the first watch would ask for another full scan.
        await self._watcher.begun()
        while True:
            # From the end of the last one on: one that takes longer must not follow upon itself.
            next_full = self.local.looked_at_all + self._scan_interval_s
            await self.local.wait(max(0.0, next_full - self._clock.monotonic()))
            if self._clock.monotonic() >= next_full:
                self.local.mark(None)
            self.local.author = self._author()
            if not await self._guard.run(self.local.scan, _SCANNING):
                continue
            if not self._scanned:
                self._scanned = True
                _log.info("scanned folder=%s", self.name)
            # What was put off because the disk was not as expected can be tried again.
            self.pull()
            self._announce()

    async def _pull_always(self) -> None:
        while True:
            # Otherwise the next scan wakes it: what is due must not be waited for in a circle.
            due = self._next_retry() if self._may_pull else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due):
                    await self._pull_wake.wait()
            self._pull_wake.clear()
            if self._may_pull:
                await self._guard.run(self._pull_and_mend, _PULLING)
                self.changed.set()

    def _next_retry(self) -> float | None:
        retries = (self._puller.next_retry(), self._mender.next_retry())
        return min((each for each in retries if each is not None), default=None)

    async def _pull_and_mend(self) -> None:
        await self._puller.run_until_idle()
        if await self._mender.mend():
            self._puller.try_again()
            self.pull()
            self._announce()

    @property
    def _may_pull(self) -> bool:
        return self._scanned and self._guard.halted is None

    def pull(self) -> None:
        """Try again what is wanted."""
        self._pull_wake.set()

    def rescan(self) -> None:
        self.local.mark(None)

    def approve(self) -> int:
        """Let the deletions pass that wait for a person's word; how many."""
        approved = self.local.approve() + self._puller.deletions.approve()
        self.pull()
        return approved

    def _recorded(self) -> None:
        # The peer at whose batch the index failed may be away by now.
        self.problems.clear(_LISTENING, "")
        self._announce()

    def _announce(self) -> None:
        self._exchanges.recorded()
        self.changed.set()

    # --- peers -----------------------------------------------------------------------------

    async def attach(self, session: Session) -> None:
        await self._exchanges.attach(session)

    def detach(self, session: Session) -> None:
        self._exchanges.detach(session)
        self.changed.set()

    async def handle(self, session: Session, message: FolderMessage, payload: bytes) -> None:
        try:
            await self._exchanges.handle(session, message, payload)
        except (RemoteProtocolError, SessionClosedError):
            raise
        except (P2psyncError, OSError) as error:
            # It ends the session, and is no fault of the network, as it would seem.
            self._guard.tell(error, _LISTENING)
            self._failed_at = type(message)
            raise
        # What failed came from elsewhere meanwhile, and will not come again.
        came = isinstance(message, FolderOffer) and self._exchanges.has_all_of(session)
        if isinstance(message, self._failed_at) or (came and self._failed_at is IndexBatch):
            # What failed works again, and not just something that writes nothing.
            self.problems.clear(_LISTENING, "")
        self.changed.set()

    def offers_arrived(self) -> None:
        self._puller.notice()
        self.pull()

    def offers_settled(self) -> None:
        self._announce()

    def _help_came(self) -> None:
        self._puller.try_again()
        self.pull()

    def may_be_mended(self) -> None:
        self._mender.hurry()
        self.pull()

    async def begin_anew(self, epoch: int, reason: str) -> None:
        """A peer cannot go on from what it knows of our index of that epoch."""
        if epoch != self.index.epoch:
            return
        # In sessions of its own, because in these there are batches under way.
        self._exchanges.drop_sessions(_ANEW)
        async with self.turn:
            if epoch != self.index.epoch:
                # Two peers showed it.
                return
            _log.warning("index begins anew folder=%s reason=%s", self.name, reason)
            await self.index.renew_replica()
        # Those that began meanwhile have offered the old epoch.
        self._exchanges.drop_sessions(_ANEW)
        self.local.mark(None)

    # --- how it stands -----------------------------------------------------------------------

    def _sharers(self) -> list[DeviceID]:
        return [device for device in self._members() if self.is_shared_with(device)]

    async def participants(self) -> list[DeviceID]:
        """The members that take part, connected or not."""
        return await self._exchanges.participants(self._sharers())

    async def need_of(self, device: DeviceID) -> PeerNeed:
        return await self._exchanges.need_of(device)

    @property
    def _at_rest(self) -> bool:
        """Whether nothing is under way here."""
        return (
            self._scanned
            and self._guard.halted is None
            and not self.local.pending
            and not self._puller.busy
            and not self._pull_wake.is_set()
            and not self._exchanges.pending
        )

    async def state(self) -> State:
        if self.failed:
            return State.HALTED
        if not self._working:
            return State.PAUSED
        if self._guard.halted is not None or self.local.braked or self._puller.deletions.waiting:
            return State.HALTED
        if self.local.pending or not self._scanned:
            return State.SCANNING
        counts = await self.index.counts()
        if not self._at_rest or counts.need_files or self.problems.listed():
            return State.SYNCING
        return State.IDLE

    async def counts(self) -> Counts:
        return await self.index.counts()

    def all_problems(self) -> list[Problem]:
        """What keeps the folder from being in sync, the gravest first."""
        found = [self._guard.halted] if self._guard.halted is not None else []
        if self.failed:
            found.append(STOPPED)
        for count, where in (
            (len(self.local.braked), "here"),
            (self._puller.deletions.waiting, "on another device"),
        ):
            if count:
                found.append(held_back(self.name, count, where))
        return found + self.problems.listed()

    async def waiting_for(self, name_of: Callable[[DeviceID], str]) -> list[str]:
        """Why the folder is not yet in sync everywhere, a reason each; empty when it is."""
        if not self._working and not self.failed:
            return []
        state = await self.state()
        reasons = [] if state is State.IDLE else [f"“{self.name}” is {state} here"]
        for device in await self.participants():
            need = await self.need_of(device)
            if need.files:
                reasons.append(
                    f"{name_of(device)} does not hold all of “{self.name}” yet "
                    f"({need.files} changes)"
                )
        return reasons
