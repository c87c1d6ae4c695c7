"""The membership that follows from a roster's statements, for one device: see `roster`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from p2psync.core.ids import DeviceID
from p2psync.core.statements import Add, Remove, Rename, Signed, read_statement


@dataclass(frozen=True, slots=True)
class Member:
    device: DeviceID
    certificate: bytes
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The group as one device sees it."""

    members: Mapping[DeviceID, Member]
    """The other members; the viewing device itself is not among them."""
    removed: frozenset[DeviceID]
    """Those that counted removals name, to be refused until they are paired again."""
    removed_by: frozenset[DeviceID]
    """Whose removals of the viewing device count: it is out of the group it was in."""
    own_name: str | None
    """What the group calls the viewing device."""
    terms: Mapping[DeviceID, int]
    """At which term the removed ones were last removed, and the members last added."""

    def returned_since(self, earlier: "View") -> frozenset[DeviceID]:
        """Members now that `earlier` knew as removed and nobody added anew, since their remover's
        removals stopped counting. Refuse them, and remove them anew, unless a person decides
        otherwise."""
        return frozenset(
            device
            for device in earlier.removed & self.members.keys()
            if self.terms[device] <= earlier.terms[device]
        )


class _Reach(NamedTuple):
    """Who is what, if just certain removals count."""

    known: set[DeviceID]
    admitted: set[DeviceID]
    removed_at: dict[DeviceID, int]
    """The highest term of the removals of a device, be it admitted again or not."""
    kept: dict[DeviceID, dict[DeviceID, int]]
    """Of those devices: whom they added still counts, and up to which term."""


class Membership:
    """The fixed point of the rule for one root."""

    def __init__(self, statements: Iterable[Signed], root: DeviceID) -> None:
        self.root = root
        self.renames: list[Rename] = []
        self._adds: dict[DeviceID, list[Add]] = {}
        self._removals: list[Remove] = []
        for signed in statements:
            match read_statement(signed):
                case Add() as add:
                    self._adds.setdefault(add.issuer, []).append(add)
                case Remove() as removal:
                    self._removals.append(removal)
                case Rename() as rename:
                    self.renames.append(rename)
        sure: frozenset[Remove] = frozenset()
        # What certainly counts and what possibly counts bound each other until neither moves.
        while True:
            possible = self._unopposed(sure)
            surer = self._unopposed(possible)
            if surer == sure:
                break
            sure = surer
        self.counted = possible
        self._reach = self._reached(possible)
        self.known = self._reach.known
        self.removed = frozenset(self._reach.removed_at.keys() - self._reach.admitted)
        self._added_at: dict[DeviceID, int] = {}
        for add in self._counted_adds():
            if add.issuer != add.device:
                latest = max(add.term, self._added_at.get(add.device, 0))
                self._added_at[add.device] = latest

    def view(self) -> View:
        vouched: dict[DeviceID, Add] = {}
        for add in self._counted_adds():
            best = vouched.get(add.device)
            vouched[add.device] = add if best is None else min(best, add, key=_trust_in)
        names = {device: add.name for device, add in vouched.items()}
        for rename in sorted(self.renames, key=lambda each: (each.stamp, each.issuer, each.name)):
            if rename.issuer in self._reach.admitted:
                names[rename.device] = rename.name
        members = {
            device: Member(device, vouched[device].certificate, names[device])
            for device in sorted(self._reach.admitted - {self.root})
        }
        terms = {device: self._added_at[device] for device in members}
        terms |= {device: self._reach.removed_at[device] for device in self.removed}
        admitted_at = self._added_at.get(self.root, -1)
        return View(
            members=MappingProxyType(members),
            removed=self.removed,
            removed_by=frozenset(
                removal.issuer
                for removal in self.counted
                if removal.device == self.root and removal.term >= admitted_at
            ),
            own_name=names.get(self.root),
            terms=MappingProxyType(terms),
        )

    def term_to_add(self, device: DeviceID) -> int:
        """The least term at which an addition is not overridden by the removals that count."""
        if device == self.root:
            return self._added_at.get(device, 0)
        return self._reach.removed_at.get(device, -1) + 1

    def removal_by_root(self, device: DeviceID) -> Remove:
        """It overrides all additions of the device by others, and keeps those by it that count."""
        keeps: dict[DeviceID, int] = {}
        for add in self._counted_adds_of(device, self._reach):
            if add.device != device:
                keeps[add.device] = max(add.term, keeps.get(add.device, 0))
        # Those that do not count now are overridden too: they must not come to count by what the
        # device, or who signed them, says later.
        terms = [
            add.term
            for adds in self._adds.values()
            for add in adds
            if add.device == device != add.issuer
        ]
        return Remove(self.root, device, tuple(sorted(keeps.items())), max(terms, default=0))

    def _unopposed(self, counted: frozenset[Remove]) -> frozenset[Remove]:
        """The removals whose signer is admitted, if just `counted` count.

        The more count the fewer are unopposed: that is what makes the fixed point one.
        """
        admitted = self._reached(counted).admitted
        return frozenset(removal for removal in self._removals if removal.issuer in admitted)

    def _reached(self, counted: frozenset[Remove]) -> _Reach:
        reach = _Reach({self.root}, {self.root}, {}, {})
        for removal in counted:
            if removal.device != self.root:
                latest = max(removal.term, reach.removed_at.get(removal.device, 0))
                reach.removed_at[removal.device] = latest
                keeps = dict(removal.keeps)
                held = reach.kept.setdefault(removal.device, keeps)
                reach.kept[removal.device] = {
                    device: min(term, held[device])
                    for device, term in keeps.items()
                    if device in held
                }
        frontier = [self.root]
        while frontier:
            for add in self._counted_adds_of(frontier.pop(), reach):
                device = add.device
                admits = add.term > reach.removed_at.get(device, -1)
                if device not in reach.known or (admits and device not in reach.admitted):
                    reach.known.add(device)
                    if admits:
                        reach.admitted.add(device)
                    frontier.append(device)
        return reach

    def _counted_adds(self) -> list[Add]:
        return [add for issuer in self.known for add in self._counted_adds_of(issuer, self._reach)]

    def _counted_adds_of(self, issuer: DeviceID, reach: _Reach) -> list[Add]:
        adds = self._adds.get(issuer, [])
        if issuer in reach.admitted:
            return adds
        keeps = reach.kept[issuer]
        return [
            add for add in adds if add.device != issuer and add.term <= keeps.get(add.device, -1)
        ]


def _trust_in(add: Add) -> tuple[bool, int, DeviceID, bytes, str]:
    """What a device says of itself comes first: only its own key could sign that."""
    return (add.issuer != add.device, -add.term, add.issuer, add.certificate, add.name)
