"""What a member can do to the group with statements that are rightly signed."""

from collections.abc import Iterable

import pytest

from p2psync.core.roster import OwnDevice, Roster, decode_statements
from p2psync.core.statements import MAX_STATEMENTS, Add, Rename, Signed
from p2psync.engine import membership as module
from p2psync.engine.membership import Membership, load_membership
from p2psync.errors import RefusedError
from tests.support.played_keys import own_device, signed_by

ADA, BOB, EVE = map(own_device, ("ada", "bob", "eve"))


class Store:
    """`ports.RosterStore`."""

    def __init__(self) -> None:
        self.body = b""

    async def roster(self) -> bytes:
        return self.body

    async def save_roster(self, body: bytes) -> None:
        self.body = body


def invented(author: OwnDevice, count: int, *, start: int = 0) -> Iterable[Signed]:
    for number in range(start, start + count):
        other = own_device(f"nobody {number}")
        yield signed_by(author, Add(author.device, other.device, other.certificate, "nobody"))


def renamed(author: OwnDevice, count: int) -> Iterable[Signed]:
    for stamp in range(count):
        yield signed_by(author, Rename(author.device, author.device, "other", stamp))


async def group(*others: OwnDevice) -> Membership:
    membership = await load_membership(Store(), ADA, name="ada")
    for own in others:
        await membership.admit(own.certificate, "name", [])
    return membership


async def test_a_member_that_invents_devices_can_be_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A removal has room for 1024 whom the removed device added.
    membership = await group(BOB, EVE)
    for start in range(0, 1600, 400):
        try:
            await membership.learn(invented(EVE, 400, start=start))
        except RefusedError as error:
            assert "device remove" in str(error)
    assert len(membership.members) <= module.MAX_MEMBERS_LEARNED

    await membership.remove(EVE.device)

    assert EVE.device not in membership.members
    assert BOB.device in membership.members


async def test_a_member_that_fills_the_roster_can_be_removed() -> None:
    membership = await group(BOB, EVE)
    flood = list(renamed(EVE, MAX_STATEMENTS))
    await membership.learn(flood[: module.MAX_STATEMENTS_LEARNED - 100])
    with pytest.raises(RefusedError, match="device remove"):
        await membership.learn(flood[: MAX_STATEMENTS - 100])

    await membership.remove(EVE.device)

    assert set(membership.members) == {BOB.device}


async def test_what_a_full_roster_refuses_changes_nothing_and_the_known_stays_known() -> None:
    membership = await group(BOB, EVE)
    before = membership.encoded()
    with pytest.raises(RefusedError):
        await membership.learn(invented(EVE, module.MAX_MEMBERS_LEARNED))
    assert membership.encoded() == before
    await membership.learn(decode_statements(before))
    assert Roster(frozenset(decode_statements(before))).digest() == membership.digest()
