"""The oracle itself: a harness that cannot notice a difference proves nothing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.namespaces import NO_DATAGRAMS, Namespace, needs_namespaces, network, overheard
from tests.e2e.processes import eventually
from tests.e2e.trees import assert_same_trees, files_holding, incompressible, snapshot

_MTIME = (1_700_000_000_000_000_000, 1_700_000_000_000_000_001)


def _tree(root: Path) -> Path:
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "sub" / "file").write_bytes(b"content")
    (root / "link").symlink_to("sub/file")
    os.utime(root / "sub" / "file", ns=_MTIME)
    return root


def _touch(root: Path) -> None:
    os.utime(root / "sub" / "file", ns=(_MTIME[0], _MTIME[1] + 1))


def _rewrite(root: Path) -> None:
    (root / "sub" / "file").write_bytes(b"c0ntent")
    os.utime(root / "sub" / "file", ns=_MTIME)


def _retarget(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("sub")


def test_equal_trees_are_equal_whatever_lies_in_our_own_directory(tmp_path: Path) -> None:
    roots = {"a": _tree(tmp_path / "a"), "b": _tree(tmp_path / "b")}
    (roots["a"] / ".p2psync" / "trash").mkdir(parents=True)

    assert set(assert_same_trees(roots)) == {b"sub", b"sub/empty", b"sub/file", b"link"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda root: (root / "sub" / "file").chmod(0o755), "sub/file"),
        (_touch, "sub/file"),
        (_rewrite, "sub/file"),
        (_retarget, "link"),
        (lambda root: (root / "sub" / "empty").rmdir(), "sub/empty"),
        (lambda root: (root / "sub" / ".p2psync").mkdir(), "sub/.p2psync"),
        (lambda root: os.mkfifo(root / "pipe"), "pipe"),
    ],
    ids=["exec bit", "mtime", "bytes", "target", "empty directory", "added", "special"],
)
def test_a_difference_is_noticed_and_named(
    tmp_path: Path, change: Callable[[Path], object], named: str
) -> None:
    roots = {"a": _tree(tmp_path / "a"), "b": _tree(tmp_path / "b")}

    change(roots["b"])

    with pytest.raises(AssertionError, match=f"b'{named}'"):
        assert_same_trees(roots)


def test_names_that_are_no_text_are_seen_as_they_are(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9")).write_bytes(b"")

    assert list(snapshot(tmp_path)) == [b"caf\xe9"]


def test_a_token_is_found_wherever_it_went_but_not_in_our_own_directory(tmp_path: Path) -> None:
    for place in ("file", "sub/copy", ".p2psync/trash/file"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"token")

    assert files_holding(tmp_path, b"token") == [tmp_path / "file", tmp_path / "sub" / "copy"]


def test_incompressible_bytes_are_the_same_for_the_same_seed_only() -> None:
    assert incompressible(1000, seed=1) == incompressible(1000, seed=1)
    assert incompressible(1000, seed=1) != incompressible(1000, seed=2)


def test_waiting_ends_with_what_was_seen_last() -> None:
    def cloudy() -> bool:
        raise AssertionError("no cloud")

    with pytest.raises(AssertionError, match=r"not within 0.01 s: rain\n.*no cloud"):
        eventually(cloudy, within=0.01, what="rain")


_RECEIVE = """
import socket, sys
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.bind(("", 7777))
own.settimeout(0.5)
print("bound", flush=True)
try:
    print(own.recv(100).decode(), flush=True)
except TimeoutError:
    print("silence", flush=True)
"""

_SEND = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"hello-token", (sys.argv[1], 7777))
"""


def _send_and_hear(sender: Namespace, receiver: Namespace, address: str) -> str:
    with subprocess.Popen(
        [*receiver.enter, sys.executable, "-c", _RECEIVE], stdout=subprocess.PIPE, text=True
    ) as listening:
        assert listening.stdout is not None
        assert listening.stdout.readline() == "bound\n"
        sender.run(sys.executable, "-c", _SEND, address)
        return listening.stdout.readline().strip()


@needs_namespaces
def test_a_cable_carries_datagrams_until_a_firewall_loses_them(tmp_path: Path) -> None:
    record = tmp_path / "record"
    with network() as net:
        left, right = net.host(), net.host()
        _, address = net.cable(left, right)
        with overheard(right, record):
            assert _send_and_hear(left, right, address) == "hello-token"
            eventually(lambda: b"hello-token" in record.read_bytes(), within=5, what="recorded")

        right.drop(NO_DATAGRAMS)

        assert _send_and_hear(left, right, address) == "silence"
