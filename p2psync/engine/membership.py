"""Who belongs to the group, as this device sees it: the roster, kept on disk and told to others.

A change is stored before anyone hears of it: a device that was removed stays removed after a crash.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from p2psync.core.ids import DeviceID, short_device_id
from p2psync.core.roster import Member, OwnDevice, Roster, Signed, View, decode_statements
from p2psync.errors import DamagedError
from p2psync.ports import RosterStore


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
        await self._change(lambda roster: roster.merge(listed, self.own))

    async def admit(self, certificate: bytes, name: str, statements: Iterable[Signed]) -> None:
        """Make the device of `certificate` a member, and take over what it knows.

        Raises UsageError for a bad certificate or name, RefusedError.
        """
        listed = tuple(statements)

        def change(roster: Roster) -> Roster:
            # Before too: of one that was removed, what it signed while out is to be held back.
            known = roster.merge(listed, self.own)
            added = known.add(self.own, certificate=certificate, name=name)
            return added.merge(listed, self.own)

        await self._change(change)

    async def remove(self, device: DeviceID) -> None:
        await self._change(lambda roster: roster.remove(self.own, device))

    async def rename(self, device: DeviceID, name: str, *, now_ns: int) -> None:
        await self._change(lambda roster: roster.rename(self.own, device, name=name, stamp=now_ns))

    async def _change(self, change: Callable[[Roster], Roster]) -> None:
        async with self._changing:
            # Signatures are verified in a thread: a roster of a large group has thousands.
            changed = await asyncio.to_thread(change, self._roster)
            if changed == self._roster:
                return
            await self._store.save_roster(changed.encode())
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
