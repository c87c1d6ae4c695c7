import pytest

from p2psync.engine.addresses import KEPT, AddressBook, is_believable
from tests.support.devices import device_id

BOB = device_id("bob")
ELSEWHERE = "192.0.2.7"


@pytest.mark.parametrize("host", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fe80::1%eth0"])
def test_an_address_that_a_peer_tells_is_worth_a_try(host: str) -> None:
    assert is_believable(host, teller=ELSEWHERE)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1.2.3",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
        "0",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "localhost",
        "localhost.",
    ],
)
def test_no_spelling_of_loopback_is_believed_of_another_machine(host: str) -> None:
    assert not is_believable(host, teller=ELSEWHERE)
    assert not is_believable(host, teller="fe80::1%lo")
    assert not is_believable(host, teller="")


def test_on_one_machine_loopback_is_believed() -> None:
    assert is_believable("127.0.0.1", teller="127.0.0.5")
    assert is_believable("::1", teller="127.0.0.1")
    assert is_believable("127.0.0.1", teller="::ffff:127.0.0.1")


@pytest.mark.parametrize("host", ["files.example", "", "a" * 255, "x\0y", "224.0.0.1", "ff02::1"])
def test_names_and_groups_are_not_looked_up_for_a_peer(host: str) -> None:
    assert not is_believable(host, teller=ELSEWHERE)
    assert not is_believable(host, teller="127.0.0.1")


def test_rumours_do_not_push_out_what_worked() -> None:
    book = AddressBook({})
    book.worked(BOB, ("192.0.2.1", 1))
    for number in range(10 * KEPT):
        book.hint(BOB, [("192.0.2.2", 1 + number)])
    listed = book.candidates(BOB)
    assert listed.index(("192.0.2.1", 1)) == 1
    assert len(listed) == 1 + KEPT
