"""Pairing with one member is pairing with all of them."""

from tests.e2e.device import FOLDER
from tests.e2e.harness import Lab, converge, everywhere
from tests.e2e.processes import eventually, in_parallel


def test_two_guests_of_one_host_connect_and_go_on_without_it(lab: Lab) -> None:
    ada, bob, cyd = lab.group("ada", "bob", "cyd", folder=None)

    eventually(
        lambda: bob.is_connected_to(cyd) and cyd.is_connected_to(bob),
        within=20,
        what="bob and cyd, both paired with ada only, are connected",
    )
    for device in (ada, bob, cyd):
        device.add_folder()
    ada.write("from ada", "one")
    converge([ada, bob, cyd])

    ada.stop()
    cyd.write("from cyd", "two")
    everywhere([bob], "from cyd", b"two")

    ada.start()
    converge([ada, bob, cyd])


def test_members_keep_knowing_each_other_over_a_restart_of_all(lab: Lab) -> None:
    devices = lab.group("ada", "bob", "cyd")
    ada, bob, cyd = devices
    eventually(lambda: bob.is_connected_to(cyd), within=20, what="bob and cyd are connected")

    in_parallel(lambda device: device.stop(), devices)
    bob.start()
    cyd.start()

    eventually(lambda: bob.is_connected_to(cyd), within=20, what="they meet without the host")
    cyd.write("file", "text")
    everywhere([bob], "file", b"text")
    assert ada.process is None


def test_a_new_name_of_a_device_is_seen_everywhere(lab: Lab) -> None:
    ada, bob, cyd = lab.group("ada", "bob", "cyd", folder=None)

    ada.ok("device", "rename", "bob", "robert")

    eventually(
        lambda: all(device.peer("robert") for device in (ada, cyd)),
        within=15,
        what="the others call him robert",
    )
    eventually(lambda: bob.status()["device"]["name"] == "robert", within=15, what="so does he")


def test_a_folder_is_offered_to_those_it_is_shared_with_and_to_no_other(lab: Lab) -> None:
    ada, bob, cyd = lab.group("ada", "bob", "cyd", folder=None)
    ada.write("file", "for bob only")

    ada.ok("folder", "add", ada.root, "--name", FOLDER, "--with", "bob")

    def offered(device_status: dict[str, object]) -> str:
        return str(device_status["offered"])

    eventually(lambda: FOLDER in offered(bob.status()), within=15, what="bob is offered it")
    assert FOLDER not in offered(cyd.status())
    cyd.add_folder()
    bob.root.mkdir()
    bob.ok("folder", "add", bob.root, "--name", FOLDER, "--with", "ada")
    everywhere([bob], "file", b"for bob only")
    cyd.write("of cyd", "for nobody else")
    bob.write("of bob", "for ada only")
    everywhere([ada], "of bob", b"for ada only")
    assert sorted(path.name for path in cyd.root.iterdir()) == [".p2psync", "of cyd"]
    assert ada.read("of cyd") is None
