"""`folder add|list|remove|pause|resume|rescan`."""

from pathlib import Path

from tests.cli.conftest import CommandLine
from tests.web.fake_control import FakeControl, folder, status


def test_a_directory_is_shared_with_everyone_under_its_own_name(
    cli: CommandLine, control: FakeControl, tmp_path: Path
) -> None:
    control.answers["folder_add"] = {**folder(path="/real/Sync"), "shared_with": ["ben", "eve"]}
    result = cli("folder", "add", "Sync/../Sync")
    assert result.out == "Sharing /real/Sync as “Sync” (send-receive) with ben, eve.\n"
    assert control.calls == [
        (
            "folder_add",
            {
                "path": f"{tmp_path}/Sync/../Sync",
                "name": None,
                "mode": "send-receive",
                "with_devices": None,
                "dry_run": False,
            },
        )
    ]


def test_all_options_of_a_folder_are_passed_on(
    cli: CommandLine, control: FakeControl, tmp_path: Path
) -> None:
    added = {**folder(name="Photos"), "shared_with": []}
    control.answers["folder_add"] = added
    line = ["folder", "add", "~/p", "--name", "Photos", "--dry-run"]
    result = cli(*line, "--with", "ben", "--with", "eve")
    assert result.out.startswith(
        "Would share /home/ana/Sync as “Photos” (send-receive) with no device"
    )
    assert control.calls[0][1] == {
        "path": f"{tmp_path}/user/p",
        "name": "Photos",
        "mode": "send-receive",
        "with_devices": ["ben", "eve"],
        "dry_run": True,
    }
    assert cli(*line, "--json").json() == added


def test_folders_are_listed_with_those_that_are_offered(
    cli: CommandLine, control: FakeControl
) -> None:
    offered = [{"name": "Photos", "devices": ["ben"]}]
    control.answers["status"] = status(folders=[folder()], offered=offered)
    result = cli("folder", "list")
    assert "/home/ana/Sync" in result.out
    assert "ben offers the folder “Photos”" in result.out
    assert cli("folder", "list", "--json").json() == {"folders": [folder()], "offered": offered}


def test_a_folder_is_removed_and_its_files_stay(cli: CommandLine, control: FakeControl) -> None:
    control.answers["folder_remove"] = {"name": "Sync", "path": "/s"}
    told = "sharing “Sync”; the files stay in /s.\n"
    assert cli("folder", "remove", "Sync").out == f"Stopped {told}"
    assert cli("folder", "remove", "Sync", "--dry-run").out == f"Would stop {told}"
    assert cli("folder", "remove", "Sync", "--json").json() == {"name": "Sync", "path": "/s"}
    assert [call[1]["dry_run"] for call in control.calls] == [False, True, False]


def test_a_folder_is_paused_resumed_and_scanned(cli: CommandLine, control: FakeControl) -> None:
    assert cli("folder", "pause", "A b").out.startswith("Paused “A b”.")
    assert cli("folder", "resume", "A b").out == "Resumed “A b”.\n"
    assert cli("folder", "rescan", "A b").out == "Scanning “A b”.\n"
    assert control.calls == [
        (f"folder_{verb}", {"name": "A b"}) for verb in ("pause", "resume", "rescan")
    ]
