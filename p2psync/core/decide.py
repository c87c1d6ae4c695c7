"""What to do about one path: its held entry and all that peers offer for it become a decision.

Deciding again after a decision was carried out decides nothing more, and the order in which
offers came does not matter: `merge` is symmetric, and the fold runs in the order of the dots.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from p2psync.core.entry import Entry, Kind
from p2psync.core.ids import DeviceID
from p2psync.core.merge import conflict_copy, merge
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
    ordered = sorted(offers, key=lambda offer: offer[1].version.dot)
    versions = ([held] if held is not None else []) + [entry for _, entry in ordered]
    winner, *rest = versions
    losers: list[Entry] = []
    for entry in rest:
        winner, loser = merge(winner, entry)
        if loser is not None:
            losers.append(loser)
    copies: dict[RelPath, Copy] = {}
    for loser in losers:
        if loser.same_content(winner):
            continue
        name, entry = conflict_copy(path, loser)
        copies[name] = Copy(name, entry, _holders(offers, loser))
    return Decision(path, held, winner, tuple(copies.values()), _holders(offers, winner))


def _holders(offers: Iterable[tuple[DeviceID, Entry]], wanted: Entry) -> tuple[DeviceID, ...]:
    return tuple(dict.fromkeys(peer for peer, entry in offers if entry.same_content(wanted)))


def is_news(held: Entry | None, offered: Entry) -> bool:
    """Whether an offer could change anything where `held` is held."""
    if held is None:
        return True
    winner, loser = merge(held, offered)
    return winner != held or loser is not None


def brake_holds(deletions: int, files: int, *, least: int, percent: int) -> bool:
    """Whether so many deletions (moves not counted) of so many files wait for approval."""
    return deletions > max(least, files * percent // 100)


def is_removal(decision: Decision) -> bool:
    return decision.winner.kind == Kind.TOMBSTONE
