"""Homes: made whole or not at all, and never out of someone's files."""

import os
from pathlib import Path

import pytest

from p2psync.cli.home import create_home, host_name, is_home, load_config, load_or_create
from p2psync.config import Config
from p2psync.errors import ConfigError, UsageError


def test_a_home_that_was_made_is_private_and_read_back(home: Path) -> None:
    made = create_home(home, name="laptop", listen=(("127.0.0.1", 0),))
    assert made == Config(name="laptop", listen=(("127.0.0.1", 0),))
    assert is_home(home)
    assert load_config(home) == load_or_create(home) == made
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "config.toml").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in home.iterdir()} == {"config.toml", "device.key", "device.crt"}


def test_a_home_is_not_made_twice(home: Path) -> None:
    create_home(home, name="laptop", listen=None)
    key = (home / "device.key").read_bytes()
    with pytest.raises(UsageError, match="initialised already"):
        create_home(home, name="other", listen=None)
    assert (home / "device.key").read_bytes() == key
    assert load_config(home).name == "laptop"


def test_an_empty_directory_becomes_a_private_home(home: Path) -> None:
    home.mkdir(mode=0o755)
    create_home(home, name=None, listen=None)
    assert home.stat().st_mode & 0o777 == 0o700
    assert load_config(home).name == host_name()


def test_a_directory_with_other_files_is_left_alone(home: Path) -> None:
    home.mkdir(mode=0o755)
    (home / "thesis").touch()
    with pytest.raises(UsageError, match="holds other files"):
        create_home(home, name=None, listen=None)
    assert [path.name for path in home.iterdir()] == ["thesis"]
    assert home.stat().st_mode & 0o777 == 0o755


def test_a_file_is_no_home(home: Path) -> None:
    home.touch()
    with pytest.raises(UsageError, match="is a file"):
        create_home(home, name=None, listen=None)
    with pytest.raises(ConfigError, match="cannot be made"):
        create_home(home / "below", name=None, listen=None)


def test_a_name_that_cannot_be_one_makes_nothing(home: Path) -> None:
    with pytest.raises(UsageError, match="holds no slash"):
        create_home(home, name="a/b", listen=None)
    assert not home.exists()


def test_a_home_whose_making_was_cut_short_is_completed_by_its_defaults(home: Path) -> None:
    create_home(home, name="laptop", listen=None)
    (home / "config.toml").unlink()
    assert is_home(home)
    assert load_or_create(home) == Config(name=host_name())


def test_a_home_whose_making_was_cut_short_at_its_first_file_can_be_made(home: Path) -> None:
    home.mkdir(mode=0o700)
    (home / ".device.key.new").write_bytes(b"half a key")

    create_home(home, name="ada", listen=None)

    assert {path.name for path in home.iterdir()} == {"config.toml", "device.key", "device.crt"}


def test_settings_without_a_name_have_that_of_the_host(home: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text("scan_interval_s = 60")
    assert load_config(home) == Config(name=host_name(), scan_interval_s=60)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff", "is not UTF-8 text"),
        (b"#" * (1024 * 1024 + 1), "is longer than"),
        (b"bogus = 1", "“bogus” is not a setting"),
    ],
)
def test_settings_that_cannot_be_read_are_a_sentence(home: Path, content: bytes, says: str) -> None:
    home.mkdir()
    (home / "config.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        load_config(home)


def test_a_config_that_is_no_file_is_a_sentence(home: Path) -> None:
    (home / "config.toml").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(home)


@pytest.mark.parametrize(
    ("node", "name"), [("pc.lan", "pc"), ("", "device"), ("a" * 80, "a" * 64), ("\x1b", "device")]
)
def test_the_name_of_the_host_is_one_that_a_device_can_have(
    monkeypatch: pytest.MonkeyPatch, node: str, name: str
) -> None:
    facts = os.uname_result(("Linux", node, "", "", ""))
    monkeypatch.setattr(os, "uname", lambda: facts)
    assert host_name() == name
