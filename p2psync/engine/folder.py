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
from p2psync.engine.housekeeping import Housekeeping
from p2psync.engine.local import Brakes, LocalChanges
from p2psync.engine.problems import Problems
from p2psync.engine.pull import Puller
from p2psync.engine.session import Session, SessionClosedError
from p2psync.engine.supplier import Supplier
from p2psync.engine.tasks import together
from p2psync.errors import P2psyncError
from p2psync.ports import (
    Clock,
    Counts,
    Disk,
    FolderIndex,
    Problem,
    RootUnavailableError,
    Watcher,
)
from p2psync.protocol.messages import IndexBatch
from p2psync.protocol.wire import RemoteProtocolError

_ROOT_RETRY_S = 2.0
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
    ) -> None:
        """`watcher` makes a watcher that reports to the function it is given."""
        self.spec = spec
        self.index = index
        self.disk = disk
        self._clock = clock
        self._members = members
        self._scan_interval_s = scan_interval_s
        self.problems = Problems()
        self.turn = asyncio.Lock()
        self._working = False
        self._halted: Problem | None = None
        self.failed = False
        """Whether `run` ended by a fault of ours, which the log tells; it is about to be tried
        again."""
        self._scanned = False
        """Whether everything was looked at since `run` began: nothing is pulled before."""
        self._pull_wake = asyncio.Event()
        self.changed = asyncio.Event()
        """Set whenever anything that `state` or `waiting_for` tell may have changed."""
        self.local = LocalChanges(
            index, disk, clock, self.problems, self.turn, author=author(), brakes=brakes
        )
        self.local.recorded = self._recorded
        self._author = author
        contents = Contents(spec.name, index, disk, lambda: self._exchanges.sessions())
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
            Supplier(index, disk, self.local.mark),
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
                    self._housekeeping.run(self._sharers),
                ):
                    group.create_task(work)
        finally:
            self._working = False
            self._exchanges.end()

    async def _scan_always(self) -> None:
        next_full = self._clock.monotonic() + self._scan_interval_s
        while True:
            await self.local.wait(max(0.0, next_full - self._clock.monotonic()))
            if self._clock.monotonic() >= next_full:
                self.local.mark(None)
                next_full = self._clock.monotonic() + self._scan_interval_s
            self.local.author = self._author()
            if not await self._guarded(self.local.scan, _SCANNING):
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
            longest = self._puller.next_retry() if self._may_pull else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(longest):
                    await self._pull_wake.wait()
            self._pull_wake.clear()
            if self._may_pull:
                await self._guarded(self._puller.run_until_idle, _PULLING)
                self.changed.set()

    @property
    def _may_pull(self) -> bool:
        return self._scanned and self._halted is None

    async def _guarded(self, work: Callable[[], object], source: str) -> bool:
        """Do `work` unless the root is gone; then the folder halts until it is back. Trouble with
        the disk is told as of `source`, so that other work, which goes well, does not hide it."""
        try:
            await asyncio.to_thread(self.disk.check_root)
            await work()  # type: ignore[misc]
        except RootUnavailableError as error:
            self._halt(str(error))
            await asyncio.sleep(_ROOT_RETRY_S)
            self.local.mark(None)
            return False
        except (P2psyncError, OSError) as error:
            self.problems.set(source, self._disk_problem(error))
            _log.warning("disk trouble folder=%s reason=%s", self.name, error)
            await asyncio.sleep(_ROOT_RETRY_S)
            self.local.mark(None)
            return False
        self.problems.clear(source, "")
        if self._halted is not None:
            _log.info("resumed folder=%s", self.name)
            self._halted = None
        return True

    def _disk_problem(self, error: P2psyncError | OSError) -> Problem:
        if isinstance(error, OSError):
            return self.disk.kind_of_problem(error, "")
        return Problem("", str(error), "It is tried again by itself.")

    def _halt(self, reason: str) -> None:
        if self._halted is None:
            _log.warning("halted folder=%s reason=%s", self.name, reason)
        self._halted = Problem(
            "",
            reason,
            "Bring the disk or directory back; nothing is deleted anywhere meanwhile. If it is "
            f"gone for good, run `p2psync folder remove '{self.name}'`.",
        )
        self.changed.set()

    def pull(self) -> None:
        """Try again what is wanted."""
        self._pull_wake.set()

    def rescan(self) -> None:
        self.local.mark(None)

    def approve(self) -> int:
        """Let the deletions pass that wait for a person's word; how many."""
        approved = self.local.approve() + self._puller.approve()
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
            self.problems.set(_LISTENING, self._disk_problem(error))
            raise
        if isinstance(message, IndexBatch):
            self.problems.clear(_LISTENING, "")
        self.changed.set()

    def offers_arrived(self) -> None:
        self._puller.notice()
        self.pull()

    async def rolled_back(self) -> None:
        """A peer knows more of our index than we do: it is from an earlier time."""
        _log.warning("the index of folder=%s was from an earlier time; it begins anew", self.name)
        # In sessions of its own, because in these there are batches under way.
        self._exchanges.drop_sessions("The index of a folder is exchanged anew.")
        async with self.turn:
            await self.index.renew_replica()
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
            and self._halted is None
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
        if self._halted is not None or self.local.braked or self._puller.braked:
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
        found = [self._halted] if self._halted is not None else []
        if self.failed:
            found.append(
                Problem(
                    "",
                    "The work on this folder stopped in a way it should not.",
                    "It is tried again soon; the daemon's log says more, please report it.",
                )
            )
        for count, where in (
            (len(self.local.braked), "here"),
            (self._puller.braked, "on another device"),
        ):
            if count:
                found.append(
                    Problem(
                        "",
                        f"{count} files were deleted {where}, more than pass without a word.",
                        f"If that is meant, run `p2psync approve '{self.name}'`; if not, put them "
                        "back from the trash or a backup.",
                    )
                )
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
