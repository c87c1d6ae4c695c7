"""What to do about one path: its held entry and all that peers offer for it become a decision.

Deciding again after a decision was carried out decides nothing more, and neither the order in which
offers came matters nor which version is held. Versions that others have seen take part last: they
would make conflicts of what is none any more.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from p2psync.core.entry import Entry, Kind
from p2psync.core.ids import DeviceID
from p2psync.core.merge import conflict_copy, merge, rank
from p2psync.core.observe import Observation
from p2psync.core.relpath import RelPath


class Copy(NamedTuple):
    """A losing content to be held at its conflict name before the decision's winner is recorded."""

    path: RelPath
    entry: Entry
    sources: tuple[DeviceID, ...]


class Decision(NamedTuple):
    path: RelPath
    held: Entry | None
    winner: Entry
    """The entry to hold, its vector joined from all versions that took part."""
    copies: tuple[Copy, ...]
    sources: tuple[DeviceID, ...]
    """Peers that offer the winner's content."""

    @property
    def changes_nothing(self) -> bool:
        return self.winner == self.held and not self.copies

    @property
    def keeps_content(self) -> bool:
        """Whether the disk already has the winner's content at the path."""
        return self.held is not None and self.held.same_content(self.winner)

    @property
    def keeps_metadata(self) -> bool:
        return self.held is not None and self.held.same_metadata(self.winner)


def decide(path: RelPath, held: Entry | None, offers: Sequence[tuple[DeviceID, Entry]]) -> Decision:
    """`offers` has at least one entry."""
    if held is None and len(offers) == 1:
        # Of a first sync that is nearly all.
        peer, entry = offers[0]
        return Decision(path, None, entry, (), (peer,))
    versions = {entry for _, entry in offers} | ({held} if held is not None else set())
    ranked = sorted(versions, key=rank, reverse=True)
    winner, *rest = sorted(ranked, key=lambda entry: _is_seen(entry, versions))
    losers: list[Entry] = []
    for entry in rest:
        winner, loser = merge(winner, entry)
        if loser is not None:
            losers.append(loser)
    copies: dict[RelPath, Copy] = {}
    preserved = [winner]
    # Of equal ones that which won before: only the name of its copy is sure to be free.
    for loser in sorted(losers, key=_had_a_copy, reverse=True):
        if not any(loser.same_content(other) for other in preserved):
            preserved.append(loser)
            name, entry = conflict_copy(path, loser)
            copies[name] = Copy(name, entry, _holders(offers, loser))
    return Decision(path, held, winner, tuple(copies.values()), _holders(offers, winner))


def _is_seen(entry: Entry, versions: Iterable[Entry]) -> bool:
    """Whether another version has seen this one, and not the other way round as well."""
    return any(
        other.version.covers(entry.version.dot) and not entry.version.covers(other.version.dot)
        for other in versions
    )


def _had_a_copy(loser: Entry) -> tuple[bool, tuple[Any, ...]]:
    return loser.version.origin in loser.version.kept, rank(loser)


def _holders(offers: Iterable[tuple[DeviceID, Entry]], wanted: Entry) -> tuple[DeviceID, ...]:
    return tuple(dict.fromkeys(peer for peer, entry in offers if entry.same_content(wanted)))


def is_news(held: Entry | None, offered: Entry) -> bool:
    """Whether an offer could change anything where `held` is held."""
    if held is None:
        return True
    winner, loser = merge(held, offered)
    return winner != held or loser is not None


def is_carried_out(decision: Decision, seen: Observation) -> bool:
    """Whether the decision changes something, and what is seen at the path is the winner, times
    and all."""
    winner = decision.winner
    return winner != decision.held and not decision.copies and shows(seen, winner)


def shows(seen: Observation, entry: Entry) -> bool:
    """Whether what is seen is just that, times and all."""
    return entry.is_live and seen == (
        entry.kind,
        entry.content,
        entry.size,
        entry.mtime_ns,
        entry.executable,
    )


def is_removal(decision: Decision) -> bool:
    return decision.winner.kind == Kind.TOMBSTONE
