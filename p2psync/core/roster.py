"""Who belongs to the group: signed statements, and the membership that follows from them.

A roster is a set of signed statements that only grows; merging is union, so the order in which
devices hear of things does not matter. Membership is computed from the set, as seen by one device,
the *root*, which trusts itself and whom it added, and on from there:

* A device is *known* if the root is reached backwards over additions that count. Additions signed
  by an admitted device count; of those signed by a removed device only those that every counted
  removal of it lists in `keeps`, up to the term that stands there.
* A removal counts if its signer is admitted. It overrides all additions of the device, whoever
  signed them, of its own *term* and below: so it wins over additions that did not know of it. A
  known device is *admitted* if an addition that counts has a higher term than all removals that do.
  So a removed device admits nobody and removes nobody, itself included, whatever it signs later or
  dates back, until a member adds it anew (`Roster.add` takes the next term).
* A device that is let in again is trusted with all its key ever signed. What is known by then does
  no harm: `Roster.add` lets in that device and nobody else. What a thief of the key held back is
  not known; where a key was in wrong hands, give the device a new identity instead.
* Removing a device confirms, in the remover's own name, the removals it had signed, and vouches for
  whom it had added where an earlier removal of the device does not keep them (`Roster.remove` does
  so). Where that came too late (the two never heard of each other's doings) a device would come
  back: `View.returned_since` tells, so that it can be removed again.
* Removals that contradict each other in a circle (A removes B while B removes A) all count, and so
  do other removals by devices of the circle: everyone accused is out. Nothing in the statements
  could tell the honest side from a thief who dates back, and being locked out is mended by pairing
  anew, a thief let in is not. Removals of the root do not bind the root itself; `View.removed_by`
  tells it.
* Members are the admitted devices.

The rule is the well-founded semantics of logic programs (van Gelder, alternating fixpoint), with
what it leaves undecided read as "counts": the more removals count the fewer devices are known or
admitted, and so the fewer removals count. Two members of one group with equal statements compute
the same group.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from blake3 import blake3

from p2psync.core.ids import DeviceID, short_device_id
from p2psync.core.names import name_fault
from p2psync.core.roster_view import Member, Membership, View
from p2psync.core.statements import (
    MAX_CERTIFICATE,
    MAX_ENCODED,
    MAX_STAMP,
    MAX_STATEMENTS,
    MAX_TERM,
    SIGNED_FOR,
    Add,
    Remove,
    Rename,
    Signed,
    Statement,
    decode_statements,
    encode_statement,
    encode_statements,
    read_statement,
)
from p2psync.errors import NotFoundError, RefusedError, UsageError

__all__ = [
    "MAX_CERTIFICATE",
    "MAX_ENCODED",
    "MAX_STATEMENTS",
    "Add",
    "Member",
    "OwnDevice",
    "Remove",
    "Rename",
    "Roster",
    "Signed",
    "Statement",
    "View",
    "decode_statements",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnDevice:
    """The device whose view of the group it is, and what it can do with keys.

    `device_of` gives the device that a certificate names and raises ValueError if it names none;
    `verify(certificate, signature, data)` and `sign(data)` are of the certificates' key type.
    """

    device: DeviceID
    certificate: bytes
    sign: Callable[[bytes], bytes]
    verify: Callable[[bytes, bytes, bytes], bool]
    device_of: Callable[[bytes], DeviceID]


@dataclass(frozen=True, slots=True)
class Roster:
    """A set of statements whose signatures were verified. Immutable; changes give a new roster."""

    statements: frozenset[Signed] = frozenset()

    def merge(self, others: Iterable[Signed], own: OwnDevice) -> Self:
        """The union with those of `others` that are well-formed and rightly signed by a device
        known to `own` (removed ones included: `view` decides what their word is worth).

        What strangers signed is left out. Held statements are not verified again. Raises
        RefusedError, and the roster at hand stays good, if the union is over MAX_STATEMENTS.
        """
        waiting: dict[DeviceID, list[tuple[Signed, Statement]]] = {}
        for signed in self.statements.union(others):
            if (statement := read_statement(signed)) is not None:
                waiting.setdefault(statement.issuer, []).append((signed, statement))
        accepted: dict[bytes, bytes] = {}
        certificates = {own.device: own.certificate}
        reached = [own.device]
        while reached:
            issuer = reached.pop()
            for signed, statement in waiting.pop(issuer, ()):
                if signed not in self.statements and not _holds(
                    signed, statement, certificates[issuer], own
                ):
                    continue
                # A signer can make many signatures of one statement: the same one is kept by all.
                held = accepted.get(signed.statement, signed.signature)
                accepted[signed.statement] = min(held, signed.signature)
                if isinstance(statement, Add) and statement.device not in certificates:
                    certificates[statement.device] = statement.certificate
                    reached.append(statement.device)
        if len(accepted) > MAX_STATEMENTS:
            raise RefusedError(
                f"The group's roster would have more than {MAX_STATEMENTS} statements. "
                "What a peer told of the group was not taken over; pair a new, smaller group."
            )
        return type(self)(frozenset(Signed(*item) for item in accepted.items()))

    def view(self, device: DeviceID) -> View:
        """The group as `device` sees it; the same for every order of merging."""
        return Membership(self.statements, device).view()

    def members(self, device: DeviceID) -> Mapping[DeviceID, Member]:
        """The other members of the group as `device` sees it."""
        return self.view(device).members

    def add(self, own: OwnDevice, *, certificate: bytes, name: str) -> Self:
        """Vouch for the device of `certificate`, the own one included (then it names itself).

        A removed device is let in again; nobody else is, or loses membership, by what it signed
        meanwhile. Raises UsageError for a bad name or certificate, RefusedError for a device that
        cannot be let in again.
        """
        try:
            device = own.device_of(certificate)
        except ValueError as error:
            raise UsageError(f"The other device showed no valid certificate: {error}.") from error
        membership = Membership(self.statements, own.device)
        changed = self._with(_addition(own, membership, Member(device, certificate, name)), own)
        if device not in membership.removed:
            return changed
        wanted = dict(membership.view().members)
        wanted[device] = Member(device, certificate, name)
        return changed._with_members(wanted, own)

    def remove(self, own: OwnDevice, device: DeviceID) -> Self:
        """Remove a member. Whom it added stays, and whom it removed stays out.

        Nothing changes if it is removed already. Raises UsageError for the own device,
        NotFoundError if there is no such member.
        """
        if device == own.device:
            raise UsageError(
                "A device cannot remove itself from the group. Run `p2psync device remove` on "
                "another device of the group."
            )
        membership = Membership(self.statements, own.device)
        if device in membership.removed:
            return self
        if device not in membership.known:
            raise NotFoundError(
                f"No device {short_device_id(device)} is in the group. "
                "`p2psync device list` shows those that are."
            )
        changed = self._with(membership.removal_by_root(device), own)
        for removal in membership.counted:
            if removal.issuer == device and removal.device in membership.removed:
                changed = changed._with(membership.removal_by_root(removal.device), own)
        wanted = dict(membership.view().members)
        del wanted[device]
        return changed._with_members(wanted, own)

    def rename(self, own: OwnDevice, device: DeviceID, *, name: str, stamp: int) -> Self:
        """Give a member, or the own device, another name. `stamp` is the time; it is raised above
        that of every earlier name. Raises NotFoundError, or UsageError for a bad name."""
        membership = Membership(self.statements, own.device)
        if device != own.device and device not in membership.view().members:
            raise NotFoundError(
                f"No device {short_device_id(device)} is in the group. "
                "`p2psync device list` shows those that are."
            )
        earlier = [rename.stamp for rename in membership.renames if rename.device == device]
        latest = max([stamp, *(value + 1 for value in earlier)])
        return self._with(Rename(own.device, device, name, min(latest, MAX_STAMP)), own)

    def encode(self) -> bytes:
        """For disk and wire; equal rosters give equal bytes. `decode_statements` reads it."""
        return encode_statements(self.statements)

    def digest(self) -> bytes:
        """32 bytes that are equal for equal rosters."""
        return blake3(self.encode()).digest()

    def _with(self, statement: Statement, own: OwnDevice) -> Self:
        encoded = encode_statement(statement)
        signed = Signed(encoded, own.sign(SIGNED_FOR + encoded))
        if read_statement(signed) is None:
            if not isinstance(statement, Remove) and name_fault(statement.name):
                raise UsageError(
                    "A device's name has 1 to 64 printable characters, no slash among them and no "
                    "space at either end."
                )
            raise UsageError("This cannot be recorded in the group's roster: it is too large.")
        if any(held.statement == encoded for held in self.statements):
            return self
        return self.merge([signed], own)

    def _with_members(self, wanted: Mapping[DeviceID, Member], own: OwnDevice) -> Self:
        """With as many statements of `own` as make just `wanted` the other members.

        It ends: none of the others' statements counts against those that it makes, whose terms
        are above theirs.
        """
        roster = self
        while True:
            membership = Membership(roster.statements, own.device)
            members = membership.view().members
            if members.keys() == wanted.keys():
                return roster
            for device in sorted(wanted.keys() - members.keys()):
                roster = roster._with(_addition(own, membership, wanted[device]), own)
            for device in sorted(members.keys() - wanted.keys()):
                roster = roster._with(membership.removal_by_root(device), own)


def _addition(own: OwnDevice, membership: Membership, member: Member) -> Add:
    term = membership.term_to_add(member.device)
    if term > MAX_TERM:
        raise RefusedError(
            f"The device {short_device_id(member.device)} was removed from this group for good. "
            "To let it in again, give it a new identity and pair it anew."
        )
    return Add(own.device, member.device, member.certificate, member.name, term)


def _holds(signed: Signed, statement: Statement, issuer: bytes, own: OwnDevice) -> bool:
    """Whether the issuer (a certificate) signed it, and a certificate in it is the device's."""
    try:
        if isinstance(statement, Add) and own.device_of(statement.certificate) != statement.device:
            return False
        return own.verify(issuer, signed.signature, SIGNED_FOR + signed.statement)
    except ValueError:
        return False
