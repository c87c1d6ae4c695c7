"""One person at one device: changes to the disk of which it is known what they overwrote.

While devices talk, a change takes out what it replaces in the same step (`RENAME_EXCHANGE`), so
that what it overwrote is looked at afterwards and not guessed before. Where nobody else writes, a
change is made as programs make it: `plain`.
"""

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.oracle.ledger import Ledger
from tests.oracle.tokens import ONE_PAGE, file_content, link_target, token_of
from tests.oracle.tree import Found, IsPrivate, Kind, look, nothing_is_private, open_file, read_tree

_NO_REPLACE, _EXCHANGE = 1, 2
_HERE = -100
_libc = ctypes.CDLL(None, use_errno=True)

SCRATCH = ".~"
"""How the names of files begin that a program writes beside the one it is about to replace."""


def _rename(source: str, target: str, flags: int) -> None:
    done = _libc.renameat2(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flags)
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)


class Missed(Exception):
    """The disk was not as the change needs it; nothing was done."""


@dataclass(slots=True)
class User:
    """Every method that changes something raises Missed, or has told the ledger."""

    device: str
    root: Path
    desk: Path
    """A directory beside the root, on the same file system."""
    ledger: Ledger
    is_private: IsPrivate = nothing_is_private
    _numbers: Iterator[int] = field(default_factory=count)
    _displaced: list[tuple[str, str]] = field(default_factory=list)

    def tree(self) -> dict[str, Found]:
        return read_tree(self.root, self.is_private)

    def found(self, path: str) -> Found:
        try:
            return look(self._at(path))
        except OSError:
            raise Missed from None

    def create(self, path: str, size: int, *, plain: bool = False, token: int = 0) -> int:
        """A new file; `token` is given if someone else writes the same."""
        is_first = token == 0
        token = token or self.ledger.new_token()
        if plain and size < ONE_PAGE:
            self.ledger.torn_paths.add(path)
            self.ledger.wrote(path, token)
            step = lambda: self._write_new(self._at(path), token, size)  # noqa: E731
        else:
            staged = self._stage_file(token, size)
            self.ledger.wrote(path, token)
            step = lambda: _rename(staged, self._at(path), _NO_REPLACE)  # noqa: E731
        self._attempt(step, path, token if is_first else 0)
        if not is_first:
            self.ledger.wrote_again(path, token)
        self._note(f"creates “{path}” with token {token}, {size} bytes", [path], [token])
        return token

    def link(self, path: str) -> None:
        """A new symbolic link, or another one instead of what is there."""
        token = self.ledger.new_token()
        staged = self._desk_name()
        os.symlink(link_target(token), staged)
        self.ledger.wrote(path, token)
        if os.path.lexists(self._at(path)):
            self._exchange(staged, path, token, "replaces “{}” by a link with token {}")
        else:
            self._attempt(lambda: _rename(staged, self._at(path), _NO_REPLACE), path, token)
            self._note(f"makes a link “{path}” with token {token}", [path], [token])

    def edit_in_place(self, path: str) -> None:
        """Write into the file that is there, keeping its size."""
        try:
            fd = os.open(self._at(path), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            raise Missed from None
        with os.fdopen(fd, "r+b", buffering=0) as file:
            before = os.fstat(fd)
            old = token_of(file.readall())
            if old is None or before.st_size > ONE_PAGE:
                raise Missed
            token = self.ledger.new_token()
            self.ledger.wrote(path, token)
            sure = _same_file(os.fstat(fd), before)
            os.pwrite(fd, file_content(token, before.st_size), 0)
            sure = sure and self._is_inode(path, before)
        if not sure:
            self.ledger.doubt(path, token)
        self.ledger.ended(self.device, path, old, by=token, sure=sure)
        how = "" if sure else ", perhaps after it was replaced by another file"
        self._note(f"writes token {token} into “{path}” over {old}{how}", [path], [token, old])

    def save(self, path: str, size: int, *, plain: bool = False) -> None:
        """Replace a file as editors do, by a new one of that name."""
        found = self.found(path)
        if found.kind is not Kind.FILE or found.token is None:
            raise Missed
        token = self.ledger.new_token()
        self.ledger.wrote(path, token)
        if not plain:
            staged = self._stage_file(token, size, executable=found.executable)
            self._exchange(staged, path, token, "saves “{}” with token {}")
            return
        directory, _, name = path.rpartition("/")
        scratch = self._at(f"{directory}/{SCRATCH}{name}" if directory else f"{SCRATCH}{name}")
        self._write_new(scratch, token, size, executable=found.executable)
        os.replace(scratch, self._at(path))
        self.ledger.ended(self.device, path, found.token, by=token)
        told = f"saves “{path}” with token {token} over {found.token}"
        self._note(told, [path], [token, found.token])

    def to_directory(self, path: str, inner: str, size: int) -> None:
        """Replace a file or a link by a directory with one file."""
        if self.found(path).kind not in (Kind.FILE, Kind.LINK):
            raise Missed
        staged, token = self._desk_name(), self.ledger.new_token()
        os.mkdir(staged)
        self._write_new(os.path.join(staged, inner), token, size)
        self.ledger.made_directory(path)
        self.ledger.wrote(f"{path}/{inner}", token)
        told = f"replaces “{{}}” by a directory with “{inner}”, token {{}}"
        self._exchange(staged, path, token, told, at=f"{path}/{inner}")

    def to_file(self, path: str, size: int) -> None:
        """Replace a directory, with all that is in it, by a file."""
        if self.found(path).kind is not Kind.DIRECTORY:
            raise Missed
        token = self.ledger.new_token()
        self.ledger.wrote(path, token)
        staged = self._stage_file(token, size)
        self._exchange(staged, path, token, "replaces the directory “{}” by a file with token {}")

    def delete(self, path: str, *, plain: bool = False) -> None:
        """Delete a file, a link, or a directory with all that is in it."""
        found = self.found(path)
        if plain and found.kind is not Kind.DIRECTORY:
            if found.token is None:
                raise Missed
            os.unlink(self._at(path))
            self.ledger.ended(self.device, path, found.token)
            self._note(f"deletes “{path}” with token {found.token}", [path], [found.token])
            return
        aside = self._desk_name()
        self._attempt(lambda: _rename(self._at(path), aside, _NO_REPLACE))
        self._end_displaced(aside, path, f"deletes “{path}”")

    def rename(self, path: str, target: str, *, over: bool = False) -> None:
        """Rename a file or link to a free name; or, where nobody else writes, `over` another."""
        before = self.found(path)
        if before.kind not in (Kind.FILE, Kind.LINK) or before.token is None:
            raise Missed
        try:
            inode = os.lstat(self._at(path))
        except OSError:
            raise Missed from None
        displaced = self.found(target).token if over else None
        self.ledger.wrote(target, before.token)
        flags = 0 if over else _NO_REPLACE
        rename = lambda: _rename(self._at(path), self._at(target), flags)  # noqa: E731
        self._attempt(rename, target, before.token)
        sure = self._is_inode(target, inode) and look(self._at(target)).token == before.token
        tokens = [before.token]
        self.ledger.ended(self.device, path, before.token, sure=sure)
        if not sure:
            self.ledger.doubt(target, before.token)
            after = look(self._at(target)).token
            if after is not None and after != before.token:
                tokens.append(after)
                self.ledger.wrote(target, after, sure=False)
                self.ledger.ended(self.device, path, after, sure=False)
        if displaced is not None:
            tokens.append(displaced)
            self.ledger.ended(self.device, target, displaced, by=before.token)
        told = f"renames “{path}” to “{target}”, {_listed(tokens)}{'' if sure else ' (unclear)'}"
        self._note(told, [path, target], tokens)

    def rename_directory(self, path: str, target: str) -> None:
        """Rename a directory, with all that is in it, to a free name."""
        if self.found(path).kind is not Kind.DIRECTORY:
            raise Missed
        before = self._below(path)
        self.ledger.made_directory(target)
        self.ledger.moves.append((path, target))
        for inner, token in before.items():
            self.ledger.wrote(f"{target}/{inner}", token)
        try:
            _rename(self._at(path), self._at(target), _NO_REPLACE)
        except OSError:
            self.ledger.moves.remove((path, target))
            for inner, token in before.items():
                self.ledger.unwrote(f"{target}/{inner}", token)
            raise Missed from None
        after = self._below(target)
        for inner, token in sorted({*before.items(), *after.items()}):
            sure = before.get(inner) == token == after.get(inner)
            old, new = f"{path}/{inner}", f"{target}/{inner}"
            if sure:
                self.ledger.wrote(new, token)
            elif (token, new) in self.ledger.places:
                self.ledger.doubt(new, token)
            else:
                self.ledger.wrote(new, token, sure=False)
            self.ledger.ended(self.device, old, token, sure=sure)
        tokens = [*before.values(), *after.values()]
        told = f"renames the directory “{path}” to “{target}”, {_listed(sorted(set(tokens)))}"
        self._note(told, [path, target, *(f"{path}/{inner}" for inner in before)], tokens)

    def make_directory(self, path: str) -> None:
        self._attempt(lambda: os.mkdir(self._at(path)))
        self.ledger.made_directory(path)
        self._note(f"makes the directory “{path}”", [path])

    def touch(self, path: str, *, mode: bool) -> None:
        """Give a file the present time, or flip its execute bit."""
        try:
            fd = open_file(self._at(path))
        except OSError:
            raise Missed from None
        with os.fdopen(fd, "rb", buffering=0) as file:
            status = os.fstat(fd)
            token = token_of(file.readall())
            if token is None:
                raise Missed
            self.ledger.touched(self.device, path, token)
            if mode:
                os.fchmod(fd, stat.S_IMODE(status.st_mode) ^ stat.S_IXUSR)
            else:
                os.utime(fd)
        what = "flips the execute bit" if mode else "sets the time"
        self._note(f"{what} of “{path}” with token {token}", [path], [token])

    def clear_desk(self) -> None:
        """Look once more at what was taken out, and forget it. What a synchronizer wrote into a
        directory that was just deleted is there, and may be gone."""
        for aside, path in self._displaced:
            for inner, found in _contents(aside, path).items():
                if found.token is not None and (found.token, inner) in self.ledger.places:
                    self.ledger.ended(self.device, inner, found.token, sure=False)
        self._displaced.clear()
        shutil.rmtree(self.desk)
        self.desk.mkdir()

    def _at(self, path: str) -> str:
        return os.path.join(self.root, path)

    def _desk_name(self) -> str:
        return os.path.join(self.desk, str(next(self._numbers)))

    def _stage_file(self, token: int, size: int, *, executable: bool = False) -> str:
        staged = self._desk_name()
        self._write_new(staged, token, size, executable=executable)
        return staged

    def _write_new(self, at: str, token: int, size: int, *, executable: bool = False) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(at, flags, 0o755 if executable else 0o644)
        with os.fdopen(fd, "wb", buffering=0) as file:
            file.write(file_content(token, size))

    def _below(self, path: str) -> dict[str, int]:
        tree = read_tree(self._at(path))
        return {inner: node.token for inner, node in tree.items() if node.token is not None}

    def _is_inode(self, path: str, expected: os.stat_result) -> bool:
        try:
            return os.lstat(self._at(path)).st_ino == expected.st_ino
        except OSError:
            return False

    def _attempt(self, step: Callable[[], None], path: str = "", token: int = 0) -> None:
        """Do it, or take back what the ledger was told before."""
        try:
            step()
        except OSError as error:
            if token:
                self.ledger.unwrote(path, token)
            known = (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY, errno.EISDIR)
            if error.errno not in known:
                raise
            raise Missed from None

    def _exchange(
        self,
        staged: str,
        path: str,
        token: int,
        told: str,
        *,
        at: str | None = None,
    ) -> None:
        """`at` is where the token is, if that is below the path."""
        self._attempt(lambda: _rename(staged, self._at(path), _EXCHANGE), at or path, token)
        by = token if at is None else 0
        self._end_displaced(staged, path, told.format(path, token), by=by, new=[token])

    def _end_displaced(
        self, aside: str, path: str, told: str, *, by: int = 0, new: list[int] | None = None
    ) -> None:
        out = _contents(aside, path)
        self._displaced.append((aside, path))
        tokens = [node.token for node in out.values() if node.token is not None]
        for inner, node in out.items():
            if node.token is not None:
                over = by if inner == path else 0
                self.ledger.ended(self.device, inner, node.token, by=over)
        lost = f", over {_listed(tokens)}" if tokens else ""
        self._note(f"{told}{lost}", [path, *out], [*tokens, *(new or [])])

    def _note(self, what: str, paths: list[str], tokens: list[int] | None = None) -> None:
        self.ledger.note(self.device, what, paths, tokens or ())


def _contents(aside: str, path: str) -> dict[str, Found]:
    """What was at `path` and lies aside now, by the paths that it had."""
    top = look(aside)
    inner = read_tree(aside) if top.kind is Kind.DIRECTORY else {}
    return {path: top, **{f"{path}/{name}": node for name, node in inner.items()}}


def _same_file(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mtime_ns, one.st_ctime_ns, one.st_size) == (
        other.st_mtime_ns,
        other.st_ctime_ns,
        other.st_size,
    )


def _listed(tokens: list[int]) -> str:
    return f"token{'s' if len(tokens) > 1 else ''} {', '.join(map(str, tokens)) or 'none'}"
