"""A change goes through whoever is there: no device needs to see all others."""

from functools import partial

import pytest

from tests.e2e.device import Device
from tests.e2e.harness import Lab, converge, everywhere, start_all
from tests.e2e.namespaces import needs_namespaces, network
from tests.e2e.processes import eventually

pytestmark = needs_namespaces


@pytest.fixture
def line(lab: Lab) -> list[Device]:
    """ada - bob - cyd on two cables; nothing is routed from one end to the other."""
    made = network()
    net = made.__enter__()
    lab.finally_(lambda: made.__exit__(None, None, None))
    hosts = [net.host() for _ in range(3)]
    to_bob, _ = net.cable(hosts[0], hosts[1])
    _, to_cyd = net.cable(hosts[1], hosts[2])
    devices = [
        lab.prepare(name, listen="0.0.0.0:0", enter=host.enter)
        for name, host in zip(("ada", "bob", "cyd"), hosts, strict=True)
    ]
    start_all(devices)
    ada, bob, cyd = devices
    for end, address in ((ada, to_bob), (cyd, to_cyd)):
        port = end.address().rpartition(":")[2]
        joined = bob.join(end.new_code(), address=f"{address}:{port}")
        assert joined.code == 0, str(joined)
    for end in (ada, cyd):
        eventually(partial(bob.is_connected_to, end), within=20, what="bob sees both")
        end.add_folder()
    bob.add_folder()
    return devices


def test_the_ends_of_a_line_converge_through_the_middle(line: list[Device]) -> None:
    ada, _, cyd = line
    for number in range(30):
        ada.write(f"a/{number}", f"ada {number}")
        cyd.write(f"c/{number}", f"cyd {number}")

    tree = converge(line)

    assert len(tree) == 62
    assert not ada.is_connected_to(cyd)
    (ada.root / "a" / "3").unlink()
    cyd.write("a/4", "edited by cyd")
    everywhere([ada], "a/4", b"edited by cyd")
    eventually(lambda: cyd.read("a/3") is None, within=15, what="deleted at the far end")
    converge(line)


def test_a_change_reaches_the_far_end_after_its_author_went_away(line: list[Device]) -> None:
    ada, bob, cyd = line
    converge(line)
    cyd.stop()
    ada.write("letter", "written by ada")
    everywhere([bob], "letter", b"written by ada")

    ada.stop()
    cyd.start()

    everywhere([cyd], "letter", b"written by ada")
    cyd.write("letter", "answered by cyd")
    everywhere([bob], "letter", b"answered by cyd")
    ada.start()
    converge(line)
    assert ada.read("letter") == b"answered by cyd"
