"""Trees on disk: what they hold, how two of them differ, and bytes to fill them with.

Nothing here knows the product: it is the oracle, and reads the disk by itself.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

STATE_DIRECTORY = b".p2psync"
"""The only thing in a root that is not the user's."""

_BLOCK = 1 << 20
_SHOWN = 25


@dataclass(frozen=True, slots=True)
class Node:
    """What lies at one path. Fields that mean nothing for the kind are empty."""

    kind: str
    digest: str = ""
    executable: bool = False
    mtime_ns: int = 0
    target: bytes = b""

    def describe(self) -> str:
        if self.kind == "file":
            mode = "x" if self.executable else "-"
            return f"file {self.digest[:12]} {mode} mtime {self.mtime_ns}"
        return f"{self.kind} {self.target!r}" if self.kind == "symlink" else self.kind


Tree = dict[bytes, Node]


def snapshot(root: Path) -> Tree:
    """Everything below `root` by its raw path, without our own directory at the top.

    Raises FileNotFoundError when something goes away while it is read.
    """
    return dict(_walk(os.fsencode(root), b""))


def _walk(root: bytes, below: bytes) -> Iterator[tuple[bytes, Node]]:
    with os.scandir(os.path.join(root, below)) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if not below and entry.name == STATE_DIRECTORY:
            continue
        path = os.path.join(below, entry.name)
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            yield path, Node("directory")
            yield from _walk(root, path)
        elif stat.S_ISLNK(status.st_mode):
            yield path, Node("symlink", target=os.readlink(os.path.join(root, path)))
        elif stat.S_ISREG(status.st_mode):
            yield (
                path,
                Node(
                    "file",
                    digest=_digest(os.path.join(root, path)),
                    executable=bool(status.st_mode & stat.S_IXUSR),
                    mtime_ns=status.st_mtime_ns,
                ),
            )
        else:
            yield path, Node("special")


def _digest(path: bytes) -> str:
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(left: Tree, right: Tree) -> list[str]:
    """One line for each path at which the two trees are not the same; empty when they are equal."""
    lines = []
    for path in sorted(left.keys() | right.keys()):
        ours, theirs = left.get(path), right.get(path)
        if ours != theirs:
            one = ours.describe() if ours else "absent"
            other = theirs.describe() if theirs else "absent"
            lines.append(f"{path!r}: {one} | {other}")
    return lines


def assert_same_trees(roots: Mapping[str, Path]) -> Tree:
    """Check that all roots hold the same, and return what they hold.

    `roots` maps the name that a message should use to the directory. Raises AssertionError with a
    readable list of what differs from the first.
    """
    trees = {name: snapshot(root) for name, root in roots.items()}
    (first, expected), *others = trees.items()
    for name, tree in others:
        lines = differences(expected, tree)
        if lines:
            more = f"\n  … and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
            listed = "\n  ".join(lines[:_SHOWN])
            raise AssertionError(
                f"{first} and {name} differ at {len(lines)} paths ({first} | {name}):\n  "
                f"{listed}{more}"
            )
    return expected


def files_holding(root: Path, token: bytes) -> list[Path]:
    """The files below `root`, outside our own directory, whose bytes are exactly `token`."""
    return [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and not path.is_symlink()
        and path.relative_to(root).parts[0] != os.fsdecode(STATE_DIRECTORY)
        and path.read_bytes() == token
    ]


def incompressible(size: int, *, seed: int) -> bytes:
    """Bytes that look random and are the same for the same seed."""
    stream = _key_stream(seed)
    return stream.update(bytes(size))


def write_incompressible(path: Path, size: int, *, seed: int) -> None:
    """As `incompressible`, written to a file without holding it in memory."""
    stream = _key_stream(seed)
    zeros = bytes(_BLOCK)
    with path.open("wb") as file:
        left = size
        while left > 0:
            file.write(stream.update(zeros[: min(left, _BLOCK)]))
            left -= _BLOCK


class _KeyStream:
    """AES-CTR over zeros: several GB/s, and unlike a cheap generator it cannot be compressed."""

    def __init__(self, seed: int) -> None:
        key = hashlib.sha256(seed.to_bytes(8, "big")).digest()[:16]
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def update(self, zeros: bytes) -> bytes:
        return self._encryptor.update(zeros)


def _key_stream(seed: int) -> _KeyStream:
    return _KeyStream(seed)


def write_many_files(directory: Path, count: int, *, size: int, seed: int) -> None:
    """`count` files of different incompressible bytes, a hundred to a directory."""
    block = incompressible(count * size, seed=seed)
    for number in range(count):
        if number % 100 == 0:
            shelf = directory / f"{number // 100:03d}"
            shelf.mkdir(parents=True, exist_ok=True)
        data = block[number * size : (number + 1) * size]
        (shelf / f"file-{number:05d}.bin").write_bytes(data)
