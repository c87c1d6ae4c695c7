"""Who belongs to the group: signed statements, and the membership that follows from them.

A roster is a set of signed statements that only grows; merging is union, so the order in which
devices hear of things does not matter. Membership is computed from the set, as seen by one device,
the *root*, which trusts itself and whom it added, and on from there:

* A device is *known* if the root is reached backwards over additions. Of additions signed by a
  removed device only those count that every counted removal of it lists in `keeps`.
* A removal counts if its signer is known and is not itself removed by a removal that counts. It
  wins over all additions, and for ever: who is to return needs a new identity. So a removed device
  adds nobody and removes nobody, whatever it signs later or dates back.
* Removing a device therefore confirms, in the remover's own name, the removals it had signed
  (`Roster.remove` does so). Where that came too late (the two never heard of each other's doings)
  a device would come back: `View.returned_since` tells, so that it can be removed again.
* Removals that contradict each other in a circle (A removes B while B removes A) all count, and so
  do other removals by devices of the circle: everyone accused is out. Nothing in the statements
  could tell the honest side from a thief who dates back, and being locked out is mended by pairing
  anew, a thief let in is not. Removals of the root do not bind the root itself; `View.removed_by`
  tells it.
* Members are the known devices that no counted removal names.

The rule is the well-founded semantics of logic programs (van Gelder, alternating fixpoint), with
what it leaves undecided read as "counts". Two members of one group with equal statements compute
the same group.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Self

import msgspec
from blake3 import blake3
from msgspec import Meta

from p2psync.core.ids import DeviceID, short_device_id
from p2psync.errors import NotFoundError, RefusedError, UsageError

MAX_STATEMENTS = 4096
MAX_ENCODED = 4 * 1024 * 1024
MAX_CERTIFICATE = 2048
_MAX_STATEMENT = 40 * 1024
_MAX_KEEPS = 1024
_MAX_STAMP = (1 << 63) - 1
_SIGNED_FOR = b"p2psync roster statement 1\0"
"""Before what is signed, so that no signature made for another purpose is a statement."""

_Device = Annotated[DeviceID, Meta(min_length=32, max_length=32)]
_Name = Annotated[str, Meta(min_length=1, max_length=64)]


class _Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    issuer: _Device
    device: _Device


class Add(_Statement, frozen=True, tag="add"):
    """The issuer vouches that the device of this certificate (DER) belongs to the group."""

    certificate: Annotated[bytes, Meta(min_length=1, max_length=MAX_CERTIFICATE)]
    name: _Name


class Remove(_Statement, frozen=True, tag="remove"):
    """The device is out, for ever; of those it added, `keeps` (sorted) stay."""

    keeps: Annotated[tuple[_Device, ...], Meta(max_length=_MAX_KEEPS)]


class Rename(_Statement, frozen=True, tag="rename"):
    """The device is called `name`, unless a statement with a higher stamp says otherwise."""

    name: _Name
    stamp: Annotated[int, Meta(ge=0, le=_MAX_STAMP)]


Statement = Add | Remove | Rename


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, order=True):
    """The canonical encoding of a statement and its issuer's signature over it."""

    statement: Annotated[bytes, Meta(max_length=_MAX_STATEMENT)]
    signature: Annotated[bytes, Meta(max_length=128)]


class _Encoded(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    statements: Annotated[tuple[Signed, ...], Meta(max_length=MAX_STATEMENTS)]


_encoder = msgspec.msgpack.Encoder()
_statement_decoder = msgspec.msgpack.Decoder(Statement)
_roster_decoder = msgspec.msgpack.Decoder(_Encoded)


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
    """Those that counted removals name, to be refused for ever."""
    removed_by: frozenset[DeviceID]
    """Whose removals of the viewing device count: it is out of the group it was in."""
    own_name: str | None
    """What the group calls the viewing device."""

    def returned_since(self, earlier: "View") -> frozenset[DeviceID]:
        """Members now that `earlier` knew as removed, since their remover's removals stopped
        counting. Refuse them, and remove them anew, unless a person decides otherwise."""
        return earlier.removed & self.members.keys()


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
            if (statement := _read(signed)) is not None:
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
        return _View(self, device).result()

    def members(self, device: DeviceID) -> Mapping[DeviceID, Member]:
        """The other members of the group as `device` sees it."""
        return self.view(device).members

    def add(self, own: OwnDevice, *, certificate: bytes, name: str) -> Self:
        """Vouch for the device of `certificate`, the own one included (then it names itself).

        Raises RefusedError for a removed device, UsageError for a bad name or certificate.
        """
        try:
            device = own.device_of(certificate)
        except ValueError as error:
            raise UsageError(f"The other device showed no valid certificate: {error}.") from error
        if device in self.view(own.device).removed:
            raise RefusedError(
                f"The device {short_device_id(device)} was removed from this group and stays out. "
                "To let it in again, give it a new identity and pair it anew."
            )
        return self._with(Add(own.device, device, certificate, name), own)

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
        view = _View(self, own.device)
        if device in view.kept:
            return self
        if device not in view.known:
            raise NotFoundError(
                f"No device {short_device_id(device)} is in the group. "
                "`p2psync device list` shows those that are."
            )
        vouched = {add.device for add in view.adds.get(device, ())} - {device}
        changed = self._with(Remove(own.device, device, tuple(sorted(vouched))), own)
        for removal in view.counted:
            if removal.issuer == device and removal.device not in (device, own.device):
                keeps = tuple(sorted(view.kept[removal.device]))
                changed = changed._with(Remove(own.device, removal.device, keeps), own)
        return changed

    def rename(self, own: OwnDevice, device: DeviceID, *, name: str, stamp: int) -> Self:
        """Give a member, or the own device, another name. `stamp` is the time; it is raised above
        that of every earlier name. Raises NotFoundError, or UsageError for a bad name."""
        view = _View(self, own.device)
        if device != own.device and device not in view.result().members:
            raise NotFoundError(
                f"No device {short_device_id(device)} is in the group. "
                "`p2psync device list` shows those that are."
            )
        earlier = [rename.stamp for rename in view.renames if rename.device == device]
        latest = max([stamp, *(value + 1 for value in earlier)])
        return self._with(Rename(own.device, device, name, min(latest, _MAX_STAMP)), own)

    def encode(self) -> bytes:
        """For disk and wire; equal rosters give equal bytes. `decode_statements` reads it."""
        return _encoder.encode(_Encoded(1, tuple(sorted(self.statements))))

    def digest(self) -> bytes:
        """32 bytes that are equal for equal rosters."""
        return blake3(self.encode()).digest()

    def _with(self, statement: Statement, own: OwnDevice) -> Self:
        encoded = _encoder.encode(statement)
        signed = Signed(encoded, own.sign(_SIGNED_FOR + encoded))
        if _read(signed) is None:
            if not isinstance(statement, Remove) and not _is_name(statement.name):
                raise UsageError(
                    "A device's name has 1 to 64 printable characters and no space at either end."
                )
            raise UsageError("This cannot be recorded in the group's roster: it is too large.")
        if any(held.statement == encoded for held in self.statements):
            return self
        return self.merge([signed], own)


def decode_statements(data: bytes) -> tuple[Signed, ...]:
    """What `Roster.encode` wrote, not yet verified: `Roster().merge(...)` does that.

    Raises ValueError if it is malformed or beyond the limits.
    """
    if len(data) > MAX_ENCODED:
        raise ValueError(f"a roster of {len(data)} bytes is over {MAX_ENCODED}")
    try:
        return _roster_decoder.decode(data).statements
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a roster: {error}") from error


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 64 and name.isprintable() and name == name.strip()


def _read(signed: Signed) -> Statement | None:
    """The statement, if it is well-formed and in the one canonical encoding."""
    try:
        statement = _statement_decoder.decode(signed.statement)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if _encoder.encode(statement) != signed.statement:
        return None
    if isinstance(statement, Remove):
        return statement if list(statement.keeps) == sorted(set(statement.keeps)) else None
    return statement if _is_name(statement.name) else None


def _holds(signed: Signed, statement: Statement, issuer: bytes, own: OwnDevice) -> bool:
    """Whether the issuer (a certificate) signed it, and a certificate in it is the device's."""
    try:
        if isinstance(statement, Add) and own.device_of(statement.certificate) != statement.device:
            return False
        return own.verify(issuer, signed.signature, _SIGNED_FOR + signed.statement)
    except ValueError:
        return False


class _View:
    """The fixed point of the module's rule for one root."""

    def __init__(self, roster: Roster, root: DeviceID) -> None:
        self.root = root
        self.adds: dict[DeviceID, list[Add]] = {}
        self.renames: list[Rename] = []
        self._removals: list[Remove] = []
        for signed in roster.statements:
            match _read(signed):
                case Add() as add:
                    self.adds.setdefault(add.issuer, []).append(add)
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
        self.known, self.kept = self._reach(possible)

    def result(self) -> View:
        vouched: dict[DeviceID, Add] = {}
        for issuer in self.known:
            for add in self._counted_adds(issuer, self.kept):
                best = vouched.get(add.device)
                vouched[add.device] = add if best is None else min(best, add, key=_trust_in)
        names = {device: add.name for device, add in vouched.items()}
        for rename in sorted(self.renames, key=lambda each: (each.stamp, each.issuer, each.name)):
            if rename.issuer in self.known and rename.issuer not in self.kept:
                names[rename.device] = rename.name
        members = {
            device: Member(device, add.certificate, names[device])
            for device, add in sorted(vouched.items())
            if device not in self.kept and device != self.root
        }
        return View(
            members=MappingProxyType(members),
            removed=frozenset(self.kept),
            removed_by=frozenset(
                removal.issuer for removal in self.counted if removal.device == self.root
            ),
            own_name=names.get(self.root),
        )

    def _unopposed(self, counted: frozenset[Remove]) -> frozenset[Remove]:
        """The removals whose signer is known and not removed, if just `counted` count."""
        known, kept = self._reach(counted)
        return frozenset(
            removal
            for removal in self._removals
            if removal.issuer in known and removal.issuer not in kept
        )

    def _reach(
        self, counted: frozenset[Remove]
    ) -> tuple[set[DeviceID], dict[DeviceID, frozenset[DeviceID]]]:
        """The known devices; and for each removed one, whose additions by it still count."""
        kept: dict[DeviceID, frozenset[DeviceID]] = {}
        for removal in counted:
            if removal.device != self.root:
                keeps = frozenset(removal.keeps)
                kept[removal.device] = kept.get(removal.device, keeps) & keeps
        known = {self.root}
        frontier = [self.root]
        while frontier:
            for add in self._counted_adds(frontier.pop(), kept):
                if add.device not in known:
                    known.add(add.device)
                    frontier.append(add.device)
        return known, kept

    def _counted_adds(
        self, issuer: DeviceID, kept: Mapping[DeviceID, frozenset[DeviceID]]
    ) -> list[Add]:
        adds = self.adds.get(issuer, [])
        keeps = kept.get(issuer)
        return adds if keeps is None else [add for add in adds if add.device in keeps]


def _trust_in(add: Add) -> tuple[bool, DeviceID, bytes, str]:
    """What a device says of itself comes first: only its own key could sign that."""
    return (add.issuer != add.device, add.issuer, add.certificate, add.name)
