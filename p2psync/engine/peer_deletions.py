"""The brake on deletions that peers made: too many wait for a person's word."""

from collections.abc import Iterable, Sequence

from p2psync.core.brake import WINDOW_S, brake_holds
from p2psync.core.entry import Kind
from p2psync.core.relpath import RelPath
from p2psync.engine.attempts import NEVER_S
from p2psync.engine.local import Brakes
from p2psync.engine.moved import without_copies
from p2psync.engine.plan import GROUP_FILES
from p2psync.ports import Clock, FolderIndex, Wanted

_BURST_S = 0.2
"""Many deletions wait so long for more to come: the brake is to see them together."""
_LONGEST_BURST_S = 5.0


class PeerDeletions:
    def __init__(self, index: FolderIndex, clock: Clock, brakes: Brakes) -> None:
        self._index = index
        self._clock = clock
        self._brakes = brakes
        self._waiting: set[RelPath] = set()
        self._approved: set[RelPath] = set()
        self._passed: dict[RelPath, float] = {}
        """When those passed that nobody was asked about, in order."""
        self._counted: frozenset[RelPath] = frozenset()
        """Files that would go, as `hold` last saw it."""
        self._seen = 0
        self._burst_since = NEVER_S
        self._due = NEVER_S

    @property
    def waiting(self) -> int:
        """Deletions that wait for `approve`."""
        return len(self._waiting)

    def approve(self) -> int:
        """Let those that wait pass; how many."""
        self._approved = set(self._waiting)
        return len(self._approved)

    def due_in(self) -> float:
        """Seconds until `hold` is to be asked again."""
        return max(0.0, self._due - self._clock.monotonic())

    def is_counted(self, wanted: Wanted) -> bool:
        """Whether `hold` knew of the deletion, or need not."""
        return wanted.path in self._counted or not _contents([wanted])

    async def hold(self, outvoted: Sequence[Wanted]) -> bool:
        """Whether deletions are to wait, for others to come or for `approve`. `outvoted`: paths
        that are to go as well, though not all that is offered there is a deletion."""
        counts = await self._index.counts()
        now = self._clock.monotonic()
        self._due = NEVER_S
        deletions = counts.need_deletes + len(outvoted)
        if deletions > self._brakes.files and deletions != self._seen:
            self._seen = deletions
            self._burst_since = min(self._burst_since, now)
            if now < self._burst_since + _LONGEST_BURST_S:
                self._due = now + _BURST_S
                return True
        self._burst_since = NEVER_S
        going = await self._going(outvoted) if deletions else set()
        fresh = going - self._approved
        self._forget(now)
        holds = brake_holds(
            len(self._passed.keys() | fresh),
            counts.files,
            least=self._brakes.files,
            percent=self._brakes.percent,
        )
        if fresh and (holds or fresh & self._waiting):
            self._waiting = going
            return True
        self._waiting = set()
        self._approved &= going
        for path in fresh:
            self._passed.pop(path, None)
            self._passed[path] = now
        return False

    def _forget(self, now: float) -> None:
        while self._passed:
            oldest = next(iter(self._passed))
            if self._passed[oldest] > now - WINDOW_S:
                return
            del self._passed[oldest]

    async def _going(self, outvoted: Sequence[Wanted]) -> set[RelPath]:
        """Files that would go and whose content would not be left elsewhere in the folder."""
        going = _contents(outvoted)
        after: tuple[int, ...] = ()
        while wanted := await self._index.wanted(limit=GROUP_FILES, tombstones=True, after=after):
            after = wanted[-1].place
            going |= _contents(wanted)
        self._counted = frozenset(going)
        return await without_copies(self._index, going)


def _contents(wanted: Iterable[Wanted]) -> dict[RelPath, bytes]:
    """Of the files held there."""
    return {
        each.path: each.held.entry.content
        for each in wanted
        if each.held is not None and each.held.entry.kind == Kind.FILE
    }
