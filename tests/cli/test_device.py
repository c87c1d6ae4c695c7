"""`device list|rename|remove`."""

from tests.cli.conftest import CommandLine
from tests.web.fake_control import ANA, BEN, FakeControl, peer, status


def test_devices_are_listed_with_this_one(cli: CommandLine, control: FakeControl) -> None:
    control.answers["status"] = status(devices=[peer()])
    result = cli("device", "list")
    assert ANA["id"] in result.out
    assert BEN["id"] in result.out
    assert cli("device", "list", "--json").json() == {"device": ANA, "devices": [peer()]}


def test_a_device_gets_another_name(cli: CommandLine, control: FakeControl) -> None:
    assert cli("device", "rename", "ben", "eve").out == "ben is now called eve.\n"
    assert control.calls == [("device_rename", {"device": "ben", "name": "eve"})]


def test_a_device_is_removed(cli: CommandLine, control: FakeControl) -> None:
    control.answers["device_remove"] = {"device": BEN}
    assert cli("device", "remove", "ben").out.startswith("Removed ben (bcdefgh).")
    assert cli("device", "remove", "ben", "--dry-run").out.startswith("Would remove ben (bcdefgh).")
    assert cli("device", "remove", "ben", "--json").json() == {"device": BEN}
    assert [call[1]["dry_run"] for call in control.calls] == [False, True, False]
