"""Engines that are broken on purpose, to see that the simulation notices."""

import contextlib
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from sqlite3 import Connection
from typing import Any

from p2psync.core import decide, merge
from p2psync.core.decide import Copy
from p2psync.core.entry import Entry, Fingerprint, Kind, Manifest
from p2psync.core.observe import Observation, successor
from p2psync.core.relpath import RelPath
from p2psync.core.version import Dot
from p2psync.engine import commit, local, plan
from p2psync.engine import exchange as exchange_module
from p2psync.engine.content import Contents
from p2psync.engine.exchange import Exchange
from p2psync.engine.housekeeping import Housekeeping
from p2psync.engine.integrity import Integrity, Verdict
from p2psync.engine.plan import Planner
from p2psync.engine.reading import Reader
from p2psync.ports import Action, Hashed, Held, Row, Seen
from p2psync.protocol.messages import IndexBatch
from p2psync.storage import folder_index, offers, tombstones
from p2psync.storage.folder_index import SqliteFolderIndex
from p2psync.storage.offers import load_acknowledged
from tests.simulation.disk import SimulatedDisk
from tests.simulation.mix import Mix
from tests.simulation.oracle import is_copy
from tests.support import memory_disk

Put = Callable[[Any, str, object], None]
Change = Callable[[Mix], None]


class Mutation:
    def __init__(self, breaks: Callable[[Put], None], suits: Change) -> None:
        self.breaks = breaks
        self.suits = suits
        """Makes of any mix one in which the fault can show."""


@contextlib.contextmanager
def mutated(name: str | None) -> Iterator[Change | None]:
    if name is None:
        yield None
        return
    with contextlib.ExitStack() as stack:

        def put(owner: Any, attribute: str, value: object) -> None:
            stack.callback(setattr, owner, attribute, getattr(owner, attribute))
            setattr(owner, attribute, value)

        MUTATIONS[name].breaks(put)
        yield MUTATIONS[name].suits


def rewritten(function: Any, old: str, new: str) -> Any:
    """The function with a part of its source replaced; that part has to be there, once."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{old!r} is not in {function.__qualname__} once"
    made: dict[str, Any] = {}
    exec(source.replace(old, new), function.__globals__, made)
    return made[function.__name__]


# --- what is broken ------------------------------------------------------------------------------


def _records_before_durable(put: Put) -> None:
    """The directories are not synced when a commit returns."""
    put(SimulatedDisk, "is_lazy", True)


def _announces_before_recorded(put: Put) -> None:
    """What is to be recorded is sent before it is stored."""
    made: list[Exchange] = []
    begin, record = Exchange.__init__, SqliteFolderIndex.record

    def remember(self: Exchange, *arguments: Any, **more: Any) -> None:
        made.append(self)
        begin(self, *arguments, **more)

    async def record_late(self: SqliteFolderIndex, rows: Sequence[Any], **more: Any) -> int:
        before = self.sequence
        entries = [(before + number, row.path, row.entry) for number, row in enumerate(rows, 1)]
        for exchange in made:
            if exchange._index is self and exchange._sent == before and entries:
                exchange._sent = entries[-1][0]
                batch = IndexBatch(exchange.folder, self.epoch, before, exchange._sent)
                await exchange.session.send(batch, vars(exchange_module)["pack_entries"](entries))
        return await record(self, rows, **more)

    put(Exchange, "__init__", remember)
    put(SqliteFolderIndex, "record", record_late)


def _drops_losers(put: Put) -> None:
    """The winner is recorded though the losers' copies are not held."""

    async def none(_self: Planner, *_: object) -> list[Any]:
        return []

    put(Planner, "_missing", none)


def _forgets_tombstones(put: Put) -> None:
    """Tombstones go as soon as any other device has acknowledged them, and nobody notes it."""

    async def drop_always(self: Housekeeping, members: Callable[[], Iterable[Any]]) -> None:
        await self._index.drop_tombstones(list(members()))

    def drop(connection: Connection, members: Iterable[Any], epoch: int) -> list[int]:
        acknowledged = [load_acknowledged(connection, device) for device in members]
        sequences = [each.sequence for each in acknowledged if each.epoch == epoch]
        connection.execute(
            "DELETE FROM held WHERE kind = 0 AND sequence <= ? "
            "AND NOT EXISTS (SELECT 1 FROM wanted WHERE wanted.path = held.path)",
            (max(sequences, default=0),),
        )
        return []

    put(Housekeeping, "_drop_tombstones", drop_always)
    put(tombstones, "drop", drop)


def _settles_all(put: Put) -> None:
    """What was offered since a decision goes with what was decided on."""

    def drop(connection: Any, settled: Any) -> None:
        for path, _ in settled:
            connection.execute("DELETE FROM wanted WHERE path = ?", (path,))

    put(offers, "drop_offers", drop)


def _echoes(put: Put) -> None:
    """What a commit placed is found as a change by this device."""
    row = commit._row

    def forgetful(item: Any, result: Any) -> Any:
        made = row(item, result)
        mark = made.fingerprint
        return made._replace(fingerprint=mark._replace(ctime_ns=0) if mark else None)

    put(commit, "_row", forgetful)
    put(local, "is_new", lambda _held, _seen: True)


def _deletes_blindly(put: Put) -> None:
    """A deletion by a peer is carried out whatever is there."""
    is_expected = memory_disk._is_expected
    carry_out = SimulatedDisk._carry_out

    def whatever(_found: Fingerprint | None, _expected: Fingerprint | None) -> bool:
        return True

    def carry_out_blindly(self: SimulatedDisk, step: Any) -> Any:
        is_removal = step.action is Action.REMOVE
        setattr(memory_disk, "_is_expected", whatever if is_removal else is_expected)  # noqa: B010
        try:
            return carry_out(self, step)
        finally:
            setattr(memory_disk, "_is_expected", is_expected)  # noqa: B010

    put(SimulatedDisk, "_carry_out", carry_out_blindly)


def _trusts_racy(put: Put) -> None:
    """A file that was changed in the tick of its last read counts as unchanged."""

    def never(_self: Fingerprint, seen: Fingerprint) -> bool:
        return bool(_self[:6] == seen[:6])

    put(Fingerprint, "unchanged", never)


def _reuses_counters(put: Put) -> None:
    """An index from an earlier time goes on where it stood."""
    opened = folder_index._open

    async def open_as_it_was(path: Any, randomness: Any, _now_ns: int) -> Any:
        return await opened(path, randomness, 0)

    def same_life(meta: dict[str, int], randomness: Any) -> dict[str, int]:
        return meta if "replica" in meta else begin(meta, randomness)

    begin = folder_index._in_new_life
    put(folder_index, "_open", open_as_it_was)
    put(folder_index, "_in_new_life", same_life)
    put(SqliteFolderIndex, "has_reached", lambda _self, _sequence: True)
    put(Exchange, "_knows_more_of_us", lambda _self, _entries: False)


def _elects_by_mtime(put: Put) -> None:
    """The newest file wins, whoever has seen what."""
    first_wins = merge._first_wins

    def newest_wins(one: Entry, other: Entry) -> bool:
        if one.mtime_ns != other.mtime_ns:
            return one.mtime_ns > other.mtime_ns
        return first_wins(one, other)

    put(merge, "_first_wins", newest_wins)


def _trusts_staging(put: Put) -> None:
    """What was staged before a crash is taken for what it should be."""

    prepare = SimulatedDisk.prepare

    def all_there(self: SimulatedDisk, name: str, manifest: Manifest) -> list[bool]:
        was_there = name in self._staged
        done = prepare(self, name, manifest)
        return [True] * len(done) if was_there else done

    put(SimulatedDisk, "prepare", all_there)


def _ignores_root_loss(put: Put) -> None:
    """An empty mount point passes for the folder."""
    begin = SimulatedDisk._begin

    def begin_anyway(self: SimulatedDisk, method: str) -> None:
        is_lost, self.root_is_lost = self.root_is_lost, False
        try:
            begin(self, method)
        finally:
            self.root_is_lost = is_lost

    def find(self: SimulatedDisk, path: RelPath) -> Any:
        return None if self.root_is_lost else memory_disk.MemoryDisk._find(self, path)

    put(SimulatedDisk, "_begin", begin_anyway)
    put(SimulatedDisk, "_find", find)


def _counts_offsets_of_the_wanted(put: Put) -> None:
    """The offset of a chunk is counted after the chunks that are here were left out."""
    counted = (
        "[sum(manifest[i].size for i in range(n) if not done[i]) for n in range(len(manifest))]"
    )
    broken = rewritten(Contents.stage_large, "offsets_of(manifest)", counted)
    put(Contents, "stage_large", broken)


def _gives_up_at_unreadable(put: Put) -> None:
    """One file that cannot be read keeps the others from being recorded, and nobody is told."""
    read = Reader.read

    async def all_or_none(
        self: Reader, files: Sequence[Seen]
    ) -> tuple[dict[RelPath, Hashed], list[RelPath]]:
        hashed, unsteady = await read(self, files)
        if len(hashed) == len(files):
            return hashed, unsteady
        for file in files:
            self._problems.clear("read", file.path)
        return {}, unsteady

    put(Reader, "read", all_or_none)


def _drops_losers_about_copies(put: Put) -> None:
    """In a conflict about a conflict copy the loser is overwritten."""
    missing = Planner._missing

    async def of_originals(self: Planner, copies: Sequence[Copy]) -> list[Any]:
        return await missing(self, [copy for copy in copies if not is_copy(copy.entry.copy_of)])

    put(Planner, "_missing", of_originals)


def _names_copies_by_second(put: Put) -> None:
    """Two losers of one path and second have one name."""
    named = "{author} {moment:%Y-%m-%d} {mark}"
    broken = rewritten(merge.conflict_copy, named, "{moment:%Y-%m-%d %H%M%S}")
    for module in (merge, decide, plan):
        put(module, "conflict_copy", broken)


def _publishes_rot(put: Put) -> None:
    """Other bytes than the index says are an edit, whatever the fingerprint says."""
    judge = Integrity._record

    async def record(
        self: Integrity, path: RelPath, held: Held, content: bytes, mark: Fingerprint | None
    ) -> Verdict | None:
        if mark is None or content == held.entry.content:
            return await judge(self, path, held, content, mark)
        async with self._turn:
            seen = Observation(Kind.FILE, content, mark.size, mark.mtime_ns, mark.executable)
            dot = Dot(self._index.replica, self._index.counter + 1)
            new = successor(held.entry, seen, dot, now_ns=self._clock.now_ns(), author="")
            await self._index.record([Row(path, new, mark)])
        self._recorded()
        return Verdict.EDITED

    put(Integrity, "_record", record)


# --- where it shows ------------------------------------------------------------------------------


def _crashing(mix: Mix) -> None:
    mix.crashes = mix.crash_points = 0.8
    mix.operations = max(mix.operations, 2.0)


def _calm(mix: Mix) -> None:
    for name in mix.rates():
        setattr(mix, name, 0.0)


def _absent(mix: Mix) -> None:
    _calm(mix)
    mix.devices, mix.topology = 3, "mesh"
    mix.absences, mix.seconds, mix.operations = 0.05, 150.0, 0.3


def _busy(mix: Mix) -> None:
    mix.operations = max(mix.operations, 6.0)


def _interfering(mix: Mix) -> None:
    _busy(mix)
    mix.interference = 0.5


def _coarse(mix: Mix) -> None:
    _calm(mix)
    mix.granularity_ns = 2_000_000_000
    mix.operations, mix.seconds = 6.0, min(mix.seconds, 15.0)


def _rolled_back(mix: Mix) -> None:
    _calm(mix)
    mix.index_rollbacks, mix.steps = 0.4, 0.0
    mix.operations, mix.seconds = 3.0, 15.0


def _set_back(mix: Mix) -> None:
    _rolled_back(mix)
    mix.index_rollbacks, mix.disk_rollbacks = 0.0, 0.4


def _skewed(mix: Mix) -> None:
    _calm(mix)
    mix.skew_ns = 3_600_000_000_000
    mix.operations, mix.seconds = 3.0, 3.0


def _large(mix: Mix) -> None:
    _crashing(mix)
    mix.large, mix.latency_s, mix.seconds = 0.7, 0.03, 15.0


def _crowded(mix: Mix) -> None:
    _calm(mix)
    mix.devices, mix.topology = 4, "mesh"
    mix.operations, mix.partitions = 6.0, 0.5


def _at_once(mix: Mix) -> None:
    _crowded(mix)
    mix.seconds = 4.0


def _rotting(mix: Mix) -> None:
    mix.rot = 1.0


def _rootless(mix: Mix) -> None:
    mix.lost_roots = 0.5


MUTATIONS: dict[str, Mutation] = {
    "records-before-durable": Mutation(_records_before_durable, _crashing),
    "announces-before-recorded": Mutation(_announces_before_recorded, _crashing),
    "drops-losers": Mutation(_drops_losers, _busy),
    "forgets-tombstones": Mutation(_forgets_tombstones, _absent),
    "settles-all": Mutation(_settles_all, _busy),
    "echoes": Mutation(_echoes, _calm),
    "deletes-blindly": Mutation(_deletes_blindly, _interfering),
    "trusts-racy": Mutation(_trusts_racy, _coarse),
    "reuses-counters": Mutation(_reuses_counters, _rolled_back),
    "reuses-counters-with-files": Mutation(_reuses_counters, _set_back),
    "elects-by-mtime": Mutation(_elects_by_mtime, _skewed),
    "trusts-staging": Mutation(_trusts_staging, _large),
    "ignores-root-loss": Mutation(_ignores_root_loss, _rootless),
    "counts-offsets-of-the-wanted": Mutation(_counts_offsets_of_the_wanted, _large),
    "gives-up-at-unreadable": Mutation(_gives_up_at_unreadable, _calm),
    "drops-losers-about-copies": Mutation(_drops_losers_about_copies, _crowded),
    "names-copies-by-second": Mutation(_names_copies_by_second, _at_once),
    "publishes-rot": Mutation(_publishes_rot, _rotting),
}
