"""What the files of all devices must and must not show, whatever synchronizes them.

Each write has a content of its own. Whoever overwrites, deletes or moves a file supersedes what it
showed, if the device had taken notice of that; of what it had not, nothing is demanded.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import blake3

from p2psync.core.entry import SINGLE_CHUNK_MAX, Entry, Kind
from p2psync.core.manifest import content_id_of_manifest
from p2psync.core.relpath import RelPath
from p2psync.core.version import Dot
from p2psync.ports import Held, Row
from tests.simulation.trace import Trace
from tests.support.memory_disk import chunked

Tree = Mapping[str, bytes | str | None]


class Oracle:
    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.contents: dict[bytes, int] = {}
        """All that was ever written, with the number of the write."""
        self.ids: dict[bytes, bytes] = {}
        """The content ids of it."""
        self._superseded: set[int] = set()
        self._moved: set[int] = set()
        """Moved or touched: that wins over a deletion elsewhere."""
        self._excused: set[int] = set()
        """Superseded before the device had noticed them, or in a life that it forgot."""
        self._rotten: dict[bytes, bytes] = {}
        """Damaged bytes, and what they were."""
        self._rotten_ids: dict[bytes, bytes] = {}
        self._dots: dict[Dot, tuple[RelPath, Kind, bytes]] = {}
        self.new_dots = 0

    # --- what users do -----------------------------------------------------------------------

    def wrote(self, content: bytes) -> int:
        number = self.contents.setdefault(content, len(self.contents) + 1)
        if content not in self.ids:
            self.ids[content] = _content_id(content)
        self._superseded.discard(number)
        return number

    def superseded(self, content: bytes, *, was_noticed: bool) -> None:
        """What nobody wrote is told elsewhere."""
        number = self.contents.get(content, 0)
        (self._superseded if was_noticed else self._excused).add(number)

    def moved(self, content: bytes) -> None:
        self._moved.add(self.contents.get(content, 0))

    def forgot(self) -> None:
        """A device lost what it knew: whatever was superseded may come back, nothing may go."""
        self._moved.update(self.contents.values())

    # --- what disks do -----------------------------------------------------------------------

    def rotted(self, damaged: bytes, content: bytes) -> None:
        self._rotten[damaged] = content
        self._rotten_ids[_content_id(damaged)] = damaged

    def meant(self, data: bytes) -> bytes:
        """What it was before the disk damaged it."""
        return self._rotten.get(data, data)

    @property
    def knows_of_rot(self) -> bool:
        return bool(self._rotten)

    def published(self, device: str, row: Row, held: Held | None) -> None:
        """The device is about to record a version of its own where it holds `held`. Damaged bytes
        are none, unless something other than the bytes tells of an edit."""
        damaged = self._rotten_ids.get(row.entry.content)
        if damaged is None or damaged not in self._rotten:
            return
        if not _is_explained(held, row):
            self._trace.violation(f"P6 {device} makes a version of what its disk did to {row.path}")
        content = self._rotten.pop(damaged)
        self.wrote(damaged)
        # Nothing is demanded of either.
        for each in (damaged, content):
            self.superseded(each, was_noticed=False)

    # --- at every moment ---------------------------------------------------------------------

    def placed(self, device: str, path: str, content: bytes) -> None:
        if content not in self.contents:
            self._trace.violation(
                f"P5 {device} shows what nobody wrote at {path}: {content[:40]!r}"
            )

    def recorded(self, device: str, replica: int, path: RelPath, entry: Entry) -> None:
        """A row was committed."""
        dot = entry.version.dot
        if _is_of_nobody(entry):
            return
        what = (path, entry.kind, entry.content)
        known = self._dots.setdefault(dot, what)
        if known is what:
            self.new_dots += dot.replica == replica
        elif known != what:
            self._trace.violation(
                f"P9 one dot names two writes: {dot} is {known[0]} {known[1].name} "
                f"and, on {device}, {path} {entry.kind.name}"
            )

    def announced(self, device: str, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.version.dot not in self._dots and not _is_of_nobody(entry):
                self._trace.violation(f"P8 {device} announces what is not recorded: {entry}")

    # --- at rest -----------------------------------------------------------------------------

    def check(self, trees: Mapping[str, Tree]) -> None:
        """`trees` are equal but where that was told as a violation."""
        for device, tree in trees.items():
            shown = [content for content in tree.values() if isinstance(content, bytes)]
            numbers = {self.contents.get(content, 0) for content in shown}
            if 0 in numbers:
                self._trace.violation(f"P5 {device} shows what nobody wrote")
            demanded = set(self.contents.values()) - self._superseded - self._excused
            for number in sorted(demanded - numbers):
                self._trace.violation(f"P1 {device} lost write {number}")
            forbidden = self._superseded - self._moved - self._excused
            for path, content in tree.items():
                if not isinstance(content, bytes) or is_copy(path):
                    continue
                number = self.contents.get(content, 0)
                if number in forbidden:
                    self._trace.violation(f"P2 {device} shows write {number} again, at {path}")


def _is_of_nobody(entry: Entry) -> bool:
    """No write: a conflict copy, or what became of two contents that are gone."""
    return entry.version.dot == entry.version.origin and bool(entry.copy_of or not entry.is_live)


def _is_explained(held: Held | None, row: Row) -> bool:
    if held is None or held.fingerprint is None or row.fingerprint is None:
        return True
    if held.damage == row.entry.content:
        # Known to be damaged: a person says with another time that it is right.
        return held.fingerprint.mtime_ns != row.fingerprint.mtime_ns
    return not held.fingerprint.unchanged(row.fingerprint)


def _content_id(content: bytes) -> bytes:
    if len(content) > SINGLE_CHUNK_MAX:
        return content_id_of_manifest(chunked(content))
    return blake3.blake3(content).digest()


def is_copy(path: str) -> bool:
    return "(conflict " in path


def copies(tree: Tree) -> Counter[str]:
    """How many there are by the path of the original."""
    found: Counter[str] = Counter()
    for path in tree:
        if is_copy(path):
            head, _, tail = path.partition(" (conflict ")
            _, dot, suffix = tail.rpartition(")")[2].rpartition(".")
            found[head + dot + suffix] += 1
    return found
