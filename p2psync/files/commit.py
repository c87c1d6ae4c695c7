"""Carries out steps: a group's data made durable, then each change by displacing, never by
overwriting, then the directories made durable.

Between looking at a path and changing it, anyone may change it too. So what is replaced is swapped
out in one step and looked at again: only what was expected goes to the trash, anything else goes
back. Where even that fails, because someone interferes once more, the unknown object becomes
visible under a name of its own beside the path: it is a person's and never ours to drop.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import NamedTuple

from p2psync import failpoints
from p2psync.core.entry import Fingerprint, Kind
from p2psync.core.relpath import RelPath, parent
from p2psync.files.fingerprint import (
    DIRECTORY,
    fingerprint_of,
    is_as_expected,
    is_executable,
    is_recent,
    is_same_but_moved,
)
from p2psync.files.modes import mode_of_old, set_mode
from p2psync.files.mounts import Absent, absent_disk
from p2psync.files.moves import Mover, Spot
from p2psync.files.problems import kind_of_problem
from p2psync.files.ready import Ready
from p2psync.files.recovered import surface
from p2psync.files.staging import staging_area
from p2psync.files.syncing import Unsynced
from p2psync.files.trash import Aside
from p2psync.files.tree import ABSENT, Tree
from p2psync.ports import Action, Outcome, Result, Step

_LINK_AGE_NS = 1_000_000_000


class _Displaced(NamedTuple):
    slot: str
    path: RelPath
    found: os.stat_result
    """What came out, right after."""


class Commit:
    """One group, for one call of `run`."""

    def __init__(self, tree: Tree, mover: Mover, aside: Aside, now_ns: Callable[[], int]) -> None:
        self._tree = tree
        self._system = tree.system
        self._mover = mover
        self._aside = aside
        self._now_ns = now_ns
        self._absent = Absent(tree)
        self._ready = Ready(tree)
        self._unsynced = Unsynced(tree)
        self._displaced: list[_Displaced] = []
        self.stranded = False
        """Whether something unknown could not be put back into the tree and is still aside."""

    def run(self, steps: Sequence[Step]) -> list[Result]:
        failpoints.reach("commit.begun")
        self._ready.make([step for step in steps if step.staged])
        results = [self._carry_out(step) for step in steps]
        failpoints.reach("commit.before-directory-sync")
        try:
            self._unsynced.sync(many=bool(self._displaced))
        except OSError as error:
            results = [_not_durable(result, error) for result in results]
        failpoints.reach("commit.after-directory-sync")
        self._last_look()
        return results

    # --- steps -----------------------------------------------------------------------------

    def _carry_out(self, step: Step) -> Result:
        try:
            for path in (step.path, step.source):
                if path is not None and (mount := self._absent.mount_above(path)):
                    return Result(step, Outcome.FAILED, problem=absent_disk(mount))
            if problem := self._ready.problems.get(step.staged):
                return Result(step, Outcome.FAILED, problem=problem)
            try:
                spot = self._tree.place(step.path)
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                gone = step.action is Action.REMOVE
                return Result(step, Outcome.DONE if gone else Outcome.NO_PARENT)
            match step.action:
                case Action.PLACE:
                    result = self._place(step, spot)
                case Action.MOVE:
                    result = self._move(step)
                case Action.MAKE_DIRECTORY:
                    result = self._make_directory(step, spot)
                case Action.REMOVE:
                    result = self._remove(step, spot)
                case Action.SET_METADATA:
                    result = self._set_metadata(step, spot)
        except OSError as error:
            return Result(step, Outcome.FAILED, problem=kind_of_problem(error, step.path))
        if result.outcome is Outcome.DONE:
            self._unsynced.directory(parent(step.path))
        return result

    def _find(self, spot: Spot) -> os.stat_result | None:
        try:
            return self._system.stat(*spot)
        except FileNotFoundError:
            return None

    # --- placing ---------------------------------------------------------------------------

    def _place(self, step: Step, spot: Spot) -> Result:
        replaces = False
        # Where nothing should be, nothing is replaced: `put` finds what is there.
        if step.expected is not None:
            if not is_as_expected(self._find(spot), step.expected):
                return Result(step, Outcome.CHANGED)
            replaces = step.expected.kind != Kind.DIRECTORY
            if not replaces:
                removed = self._remove_directory(step, spot)
                if removed.outcome is not Outcome.DONE:
                    return removed
        new, made = self._new_object(step, replaces=replaces)
        try:
            if replaces:
                outcome = self._replace(step, new, spot)
            else:
                failpoints.reach("commit.before-put")
                self._mover.put(new, spot)
                failpoints.reach("commit.after-put")
                outcome = Outcome.DONE
        except FileExistsError:
            outcome = Outcome.CHANGED
        except FileNotFoundError:
            outcome = Outcome.NO_PARENT
        except OSError:
            self._take_back(step, new, made)
            raise
        if outcome is not Outcome.DONE:
            self._take_back(step, new, made)
            return Result(step, outcome)
        return Result(step, outcome, self._placed(spot, made))

    def _new_object(self, step: Step, *, replaces: bool) -> tuple[Spot, os.stat_result]:
        """What is to be placed, and where it waits. What replaces something waits where that is to
        go, so that after the swap the displaced is aside already, under its own name."""
        if step.entry.kind == Kind.SYMLINK:
            _, spot = self._aside.place(step.path)
            self._system.symlink(step.entry.content, *spot)
            failpoints.reach("commit.after-symlink")
            # Older than one that someone else could make now, and so never taken for it.
            self._system.set_mtime_of_link(*spot, self._now_ns() - _LINK_AGE_NS)
            return spot, self._system.stat(*spot)
        staged = (staging_area(self._tree), step.staged)
        if not replaces:
            return staged, self._ready.files[step.staged]
        _, spot = self._aside.place(step.path)
        self._mover.put(staged, spot)
        return spot, self._ready.files[step.staged]

    def _replace(self, step: Step, new: Spot, spot: Spot) -> Outcome:
        assert step.expected is not None
        failpoints.reach("commit.before-swap")
        try:
            swapped = self._mover.swap(new, spot)
        except FileNotFoundError:
            return Outcome.CHANGED
        failpoints.reach("commit.after-swap")
        if not swapped:
            return self._replace_in_two(step, new, spot)
        out = self._system.stat(*new)
        if is_same_but_moved(out, step.expected):
            self._displaced.append(_Displaced(self._aside.current, step.path, out))
            return Outcome.DONE
        try:
            self._mover.swap(new, spot)
        except FileNotFoundError:
            self._mover.put(new, spot)
        return Outcome.CHANGED

    def _replace_in_two(self, step: Step, new: Spot, spot: Spot) -> Outcome:
        """Where objects cannot be swapped: for a moment nothing is at the path. A crash then looks
        like a deletion, and any version of the path wins over that."""
        outcome = self._displace(step, spot)
        if outcome is Outcome.DONE:
            try:
                self._mover.put(new, spot)
            except FileExistsError:
                raise
            except OSError:
                self._restore(spot)
                raise
        return outcome

    def _take_back(self, step: Step, new: Spot, made: os.stat_result) -> None:
        """After a failure: what waited aside goes back to where it was staged. If that is not what
        lies there, it is a person's."""
        found = self._find(new)
        if found is None:
            return
        if _state(found)[:3] != _state(made)[:3]:
            self._surface(new, step.path)
        elif step.entry.kind == Kind.SYMLINK:
            self._system.unlink(*new)
        elif new != (staging_area(self._tree), step.staged):
            self._mover.put(new, (staging_area(self._tree), step.staged))

    def _placed(self, spot: Spot, made: os.stat_result) -> Fingerprint | None:
        """Of what was placed. A write from now on sets another mtime than the one it came with, so
        the clock's granularity matters for recent ones only."""
        found = None
        # It is there, whatever may be told of it.
        with contextlib.suppress(OSError):
            found = self._find(spot)
        now_ns = self._now_ns()
        untouched = found is not None and _state(found)[:3] == _state(made)[:3]
        mark = fingerprint_of(found if found is not None and untouched else made, now_ns=now_ns)
        if mark is None:
            return None
        racy = not untouched or is_recent(mark.mtime_ns, made, now_ns)
        # A chmod meanwhile is an edit, and to be found as one.
        return Fingerprint(*mark[:5], executable=is_executable(made), racy=racy)

    # --- moving ----------------------------------------------------------------------------

    def _move(self, step: Step) -> Result:
        assert step.source is not None and step.expected is not None
        try:
            source, spot = self._tree.places(step.source, step.path)
            if not is_as_expected(self._find(source), step.expected):
                return Result(step, Outcome.CHANGED)
            failpoints.reach("commit.before-move")
            self._mover.move(source, spot)
        except (FileExistsError, FileNotFoundError, NotADirectoryError):
            return Result(step, Outcome.CHANGED)
        failpoints.reach("commit.after-move")
        out = self._find(spot)
        if out is not None and not is_same_but_moved(out, step.expected):
            # Or it stays where it is, for all to see.
            with contextlib.suppress(OSError):
                self._mover.move(spot, source)
            return Result(step, Outcome.CHANGED)
        # What someone wrote a moment ago is to be as durable as all that peers' versions name.
        self._unsynced.file(step.path)
        self._unsynced.directory(parent(step.path))
        self._unsynced.directory(parent(step.source))
        mark = step.expected._replace(racy=True)
        if out is not None:
            racy = is_recent(out.st_mtime_ns, out, self._now_ns())
            mark = mark._replace(ctime_ns=out.st_ctime_ns, racy=racy)
        return Result(step, Outcome.DONE, mark)

    # --- removing --------------------------------------------------------------------------

    def _remove(self, step: Step, spot: Spot) -> Result:
        found = self._find(spot)
        if found is None:
            return Result(step, Outcome.DONE)
        if not is_as_expected(found, step.expected):
            return Result(step, Outcome.CHANGED)
        if stat.S_ISDIR(found.st_mode):
            return self._remove_directory(step, spot)
        return Result(step, self._displace(step, spot))

    def _remove_directory(self, step: Step, spot: Spot) -> Result:
        try:
            self._system.remove_directory(*spot)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            return Result(step, Outcome.CHANGED)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return Result(step, Outcome.NOT_EMPTY)
            raise
        failpoints.reach("commit.after-removing-directory")
        self._tree.forget(step.path)
        return Result(step, Outcome.DONE)

    def _displace(self, step: Step, spot: Spot) -> Outcome:
        """Move what is expected at the path aside."""
        assert step.expected is not None
        slot, aside = self._aside.place(step.path)
        try:
            # Nobody else knows the name there, so that nothing can be replaced.
            self._system.rename(*spot, *aside)
        except FileNotFoundError:
            return Outcome.DONE if step.action is Action.REMOVE else Outcome.CHANGED
        failpoints.reach("commit.after-displacing")
        out = self._system.stat(*aside)
        if is_same_but_moved(out, step.expected):
            self._displaced.append(_Displaced(slot, step.path, out))
            return Outcome.DONE
        try:
            self._mover.put(aside, spot)
        except OSError:
            self._surface(aside, step.path)
        return Outcome.CHANGED

    def _restore(self, spot: Spot) -> None:
        """Undo the last displacement."""
        last = self._displaced.pop()
        aside = self._aside.spot(last.slot, last.path)
        try:
            self._mover.put(aside, spot)
        except OSError:
            self._surface(aside, last.path)

    def _surface(self, spot: Spot, path: RelPath) -> None:
        try:
            directory = surface(self._tree, self._mover, spot, path, now_ns=self._now_ns())
        except OSError:
            self.stranded = True
            raise
        self._unsynced.directory(directory)

    # --- directories and metadata ----------------------------------------------------------

    def _make_directory(self, step: Step, spot: Spot) -> Result:
        found = self._find(spot)
        if found is not None and stat.S_ISDIR(found.st_mode):
            return Result(step, Outcome.DONE, DIRECTORY)
        if not is_as_expected(found, step.expected):
            return Result(step, Outcome.CHANGED)
        if found is not None and self._displace(step, spot) is not Outcome.DONE:
            return Result(step, Outcome.CHANGED)
        try:
            self._system.make_directory(*spot, 0o777)
        except FileExistsError:
            return Result(step, Outcome.CHANGED)
        except FileNotFoundError:
            return Result(step, Outcome.NO_PARENT)
        except OSError:
            if found is not None:
                self._restore(spot)
            raise
        failpoints.reach("commit.after-making-directory")
        return Result(step, Outcome.DONE, DIRECTORY)

    def _set_metadata(self, step: Step, spot: Spot) -> Result:
        try:
            file = self._system.open_file(*spot)
        except OSError as error:
            if error.errno in ABSENT:
                return Result(step, Outcome.CHANGED)
            raise
        try:
            found = self._system.fstat(file)
            if not stat.S_ISREG(found.st_mode) or not is_as_expected(found, step.expected):
                return Result(step, Outcome.CHANGED)
            mode = mode_of_old(found.st_mode, executable=step.entry.executable)
            if mode != stat.S_IMODE(found.st_mode):
                set_mode(self._system, file, mode)
            self._system.set_mtime(file, step.entry.mtime_ns)
            failpoints.reach("commit.after-metadata")
            mark = fingerprint_of(self._system.fstat(file), now_ns=0)
        finally:
            self._system.close(file)
        self._unsynced.file(step.path)
        # The new mtime hides a write that came just before it: the content is to be read again.
        return Result(step, Outcome.DONE, mark._replace(racy=True) if mark else None)

    # --- the end of the group --------------------------------------------------------------

    def _last_look(self) -> None:
        """Someone may have had a displaced file open and written to it since: that is an edit."""
        for slot, path, found in self._displaced:
            spot = self._aside.spot(slot, path)
            now = self._find(spot)
            if now is not None and _state(now) != _state(found):
                with contextlib.suppress(OSError):
                    self._surface(spot, path)
        with contextlib.suppress(OSError):
            self._unsynced.sync()


def _state(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _not_durable(result: Result, error: OSError) -> Result:
    if result.outcome is not Outcome.DONE:
        return result
    problem = kind_of_problem(error, result.step.path)
    return result._replace(outcome=Outcome.FAILED, problem=problem)
