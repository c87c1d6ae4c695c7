"""Key files: made once, private, and refused when they could be guessed."""

import os
import string
from pathlib import Path

import pytest

from p2psync.cli.key_file import create_key_file, read_key_file
from p2psync.errors import ConfigError, NotFoundError, UsageError


def random_bytes(size: int) -> bytes:
    return bytes(range(7, 7 + size))


def test_a_key_that_was_made_is_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = create_key_file(tmp_path / "key", random_bytes)
    assert set(key) <= set(string.ascii_lowercase + "234567")
    assert len(key) * 5 >= 256
    assert read_key_file(tmp_path / "key") == key
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert capsys.readouterr().err == ""


def test_nothing_that_is_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("kept")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("key", "link", "missing/key"):
        with pytest.raises(ConfigError, match="cannot be made"):
            create_key_file(tmp_path / name, random_bytes)
    assert (tmp_path / "key").read_text() == "kept"
    assert not (tmp_path / "nowhere").exists()


def test_a_key_that_others_can_read_is_used_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = create_key_file(tmp_path / "key", random_bytes)
    (tmp_path / "key").chmod(0o640)
    assert read_key_file(tmp_path / "key") == key
    assert "chmod 600" in capsys.readouterr().err


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"two words of it", b"one\ntwo", "schlüssel".encode(), b"a\0b", b"x" * 5000],
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match="holds no key"):
        read_key_file(write(tmp_path, content))


@pytest.mark.parametrize(
    "key", ["0123456789" * 4, "0123456789abcdef" * 1, "abcdefghijklmnopqrstuvwxy", "a" * 100]
)
def test_a_key_that_can_be_guessed_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UsageError, match="is too short"):
        read_key_file(write(tmp_path, key.encode()))


@pytest.mark.parametrize(
    "key", ["0123456789" * 5, "0123456789abcdef" * 2, "abcdefghijklmnopqrstuvwxyz", "Aa1+/bB2" * 3]
)
def test_a_key_of_ones_own_is_taken_if_it_is_long_enough(tmp_path: Path, key: str) -> None:
    assert read_key_file(write(tmp_path, f" {key}\r\n".encode())) == key


def test_a_key_file_that_is_missing_or_no_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="There is no key file"):
        read_key_file(tmp_path / "key")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UsageError, match="is not a file"):
            read_key_file(path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        read_key_file(tmp_path / "file" / "key")
