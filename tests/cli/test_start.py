"""`init`, and `up` where a daemon runs already."""

from pathlib import Path

import pytest

from p2psync.cli import live, start
from p2psync.cli.home import load_config
from p2psync.errors import RefusedError
from tests.cli.conftest import CommandLine
from tests.web.fake_control import FakeControl, folder, peer, status


@pytest.fixture
def hints(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What was shown with the view, which ends at once."""
    shown: list[list[str]] = []
    monkeypatch.setattr(live, "watch", lambda client, *, stop, hint: shown.append(list(hint)))
    return shown


def test_a_home_is_made_with_its_settings(cli: CommandLine) -> None:
    result = cli("init", "--name", "laptop", "--listen", "127.0.0.1:0", "--listen", "[::1]:4000")
    assert result.code == 0
    assert "Start it with `p2psync daemon`." in result.out
    config = load_config(cli.home)
    assert (config.name, config.listen) == ("laptop", (("127.0.0.1", 0), ("::1", 4000)))
    assert cli("init").code == 2


def test_a_running_daemon_is_given_the_folder(
    cli: CommandLine, control: FakeControl, hints: list[list[str]], tmp_path: Path
) -> None:
    control.answers["folder_add"] = folder()
    result = cli("up")
    assert (result.code, result.out) == (0, "Sharing /home/ana/Sync as “Sync”.\n")
    assert (tmp_path / "user" / "Sync").is_dir()
    assert control.changes()[0][1]["path"] == f"{tmp_path}/user/Sync"
    assert any("p2psync pair new" in line for line in hints[0])


def test_a_folder_that_is_shared_already_is_only_shown(
    cli: CommandLine, control: FakeControl, hints: list[list[str]], tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    control.answers["status"] = status(
        folders=[folder(path=str(tmp_path / "there"))], devices=[peer()]
    )
    assert cli("up", "link").code == 0
    assert control.changes() == []
    assert hints == [[]]


def test_a_directory_that_could_not_be_shared_is_not_left_behind(
    cli: CommandLine, control: FakeControl, hints: list[list[str]], tmp_path: Path
) -> None:
    control.answers["folder_add"] = RefusedError("No.")
    (tmp_path / "there").mkdir()
    assert cli("up", "new").code == cli("up", "there").code == 5
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "there").exists()
    assert hints == []


def test_what_is_no_directory_cannot_be_shared(
    cli: CommandLine, control: FakeControl, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert "is not a directory" in cli("up", "file").sentence
    assert "cannot be made" in cli("up", "file/below").sentence
    assert control.changes() == []


def test_the_daemon_is_announced_unless_it_ends_already(
    cli: CommandLine, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cli.home / "config.toml").touch()
    ran: list[object] = []

    def run(home: Path, config: object, *, log: object, beside: object) -> None:
        ran.append(config)
        assert callable(beside)
        beside(None)

    monkeypatch.setattr("p2psync.cli.foreground.run_daemon_with", run)
    assert cli("daemon").out == "p2psync is running as ana, listening on 127.0.0.1:4001.\n"
    control.answers["status"] = RefusedError("No.")
    assert cli("daemon").out == ""
    assert len(ran) == 2


def test_the_hint_names_the_home_where_it_is_not_the_usual_one(tmp_path: Path) -> None:
    hint = start._pairing_hint(tmp_path / "a b", status())
    assert f"    p2psync --home '{tmp_path}/a b' pair new" in hint
    assert start._pairing_hint(tmp_path, status(devices=[peer()])) == []
