"""Who belongs to the group, as this device sees it: the roster, kept on disk and told to others.

A change is stored before anyone hears of it: a device that was removed stays removed after a crash.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from p2psync import failpoints
from p2psync.core.ids import DeviceID, short_device_id
from p2psync.core.roster import (
    MAX_STATEMENTS,
    Member,
    OwnDevice,
    Roster,
    Signed,
    View,
    decode_statements,
)
from p2psync.engine.tasks import whole
from p2psync.errors import DamagedError, RefusedError
from p2psync.ports import RosterStore

MAX_MEMBERS_LEARNED = 500
"""A removal has room for about twice as many that the removed device added: a member that invents
devices must not make itself irremovable."""
MAX_STATEMENTS_LEARNED = MAX_STATEMENTS - 512
"""The rest is for this device's own: whatever a member fills the roster with, it can be removed."""


class Membership:
    """`load_membership` makes it."""

    def __init__(self, store: RosterStore, own: OwnDevice, roster: Roster) -> None:
        self._store = store
        self._roster = roster
        self._changing = asyncio.Lock()
        self.own = own
        self.view: View = roster.view(own.device)
        self.on_change: Callable[[View], None] = lambda _before: None
        """Called with the view before, once a change is stored."""

    @property
    def members(self) -> Mapping[DeviceID, Member]:
        return self.view.members

    @property
    def own_name(self) -> str:
        return self.view.own_name or short_device_id(self.own.device)

    def name_of(self, device: DeviceID) -> str:
        if device == self.own.device:
            return self.own_name
        member = self.members.get(device)
        return member.name if member is not None else short_device_id(device)

    def encoded(self) -> bytes:
        """The roster, for peers."""
        return self._roster.encode()

    def digest(self) -> bytes:
        return self._roster.digest()

    async def learn(self, statements: Iterable[Signed]) -> None:
        """Take over what another member knows. Raises RefusedError when there is too much of it."""
        listed = tuple(statements)
        await self._change(lambda roster: self._merged(roster, listed))

    async def admit(self, certificate: bytes, name: str, statements: Iterable[Signed]) -> None:
        """Make the device of `certificate` a member, and take over what it knows.

        Raises UsageError for a bad certificate or name, RefusedError.
        """
        listed = tuple(statements)

        def change(roster: Roster) -> Roster:
            # Before too: of one that was removed, what it signed while out is to be held back.
            known = self._merged(roster, listed)
            added = known.add(self.own, certificate=certificate, name=name)
            return self._merged(added, listed)

        await self._change(change)

    async def remove(self, device: DeviceID) -> None:
        await self._change(lambda roster: roster.remove(self.own, device))

    async def rename(self, device: DeviceID, name: str, *, now_ns: int) -> None:
        await self._change(lambda roster: roster.rename(self.own, device, name=name, stamp=now_ns))

    def _merged(self, roster: Roster, statements: tuple[Signed, ...]) -> Roster:
        merged = roster.merge(statements, self.own)
        if merged != roster and (
            len(merged.statements) > MAX_STATEMENTS_LEARNED
            or len(merged.members(self.own.device)) > MAX_MEMBERS_LEARNED
        ):
            raise RefusedError(
                "What a peer tells of the group was not taken over: it would have more than "
                f"{MAX_MEMBERS_LEARNED} devices, or a history of more than "
                f"{MAX_STATEMENTS_LEARNED} entries. A device that filled it can be removed, on "
                "each of the others: `p2psync device remove`."
            )
        return merged

    async def _change(self, change: Callable[[Roster], Roster]) -> None:
        # Who tells of a change may be cut off by it, half-way.
        await whole(self._change_now(change))

    async def _change_now(self, change: Callable[[Roster], Roster]) -> None:
        async with self._changing:
            # Signatures are verified in a thread: a roster of a large group has thousands.
            changed = await asyncio.to_thread(change, self._roster)
            if changed == self._roster:
                return
            failpoints.reach("membership.before-saving")
            await self._store.save_roster(changed.encode())
            failpoints.reach("membership.after-saving")
            before = self.view
            self._roster = changed
            self.view = changed.view(self.own.device)
        self.on_change(before)


async def load_membership(store: RosterStore, own: OwnDevice, *, name: str) -> Membership:
    """The membership as last stored; for a new device a group of itself alone, called `name`.

    Raises DamagedError.
    """
    stored = await store.roster()
    if not stored:
        roster = Roster().add(own, certificate=own.certificate, name=name)
        await store.save_roster(roster.encode())
        return Membership(store, own, roster)
    try:
        statements = decode_statements(stored)
    except ValueError as error:
        raise DamagedError(
            f"The stored list of devices is damaged ({error}). Restore device.db from a backup, "
            "or move it away and pair the devices again; the files are not affected."
        ) from error
    roster = await asyncio.to_thread(Roster().merge, statements, own)
    return Membership(store, own, roster)
