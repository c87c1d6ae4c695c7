"""Makes the staged files of a group ready to be placed: with their metadata, and durable, before
any of them has a name that people see."""

import os
import stat
from collections.abc import Sequence

from p2psync import failpoints
from p2psync.core.entry import Kind
from p2psync.files.modes import mode_of_new, mode_of_old, set_mode
from p2psync.files.problems import kind_of_problem
from p2psync.files.staging import staging_area
from p2psync.files.syncing import FEW, sync_file, sync_file_system
from p2psync.files.tree import Tree
from p2psync.files.writing import discard
from p2psync.ports import Problem, Step

_INCOMPLETE = ("Its data is not complete on this device.", "It is fetched again by itself.")


class Ready:
    """Staging name -> what was made ready, or why it could not be."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._system = tree.system
        self.files: dict[str, os.stat_result] = {}
        self.problems: dict[str, Problem] = {}

    def make(self, steps: Sequence[Step]) -> None:
        area = staging_area(self._tree)
        few = len(steps) <= FEW
        for step in steps:
            try:
                self._finish(area, step, durable=few)
            except OSError as error:
                self._fail(area, step, error)
        if steps and not few:
            failpoints.reach("ready.before-sync")
            self._sync(area, [step for step in steps if step.staged in self.files])
        if steps:
            failpoints.reach("ready.done")

    def _finish(self, area: int, step: Step, *, durable: bool) -> None:
        if not durable and (found := self._as_it_should_be(area, step)):
            self.files[step.staged] = found
            return
        try:
            file = self._system.open_staging(area, step.staged, create=False)
        except FileNotFoundError:
            self.problems[step.staged] = Problem(step.path, *_INCOMPLETE)
            return
        try:
            if self._system.fstat(file).st_size != step.entry.size:
                self.problems[step.staged] = Problem(step.path, *_INCOMPLETE)
                return
            set_mode(self._system, file, self._mode_for(step))
            self._system.set_mtime(file, step.entry.mtime_ns)
            if durable:
                failpoints.reach("ready.before-sync")
                sync_file(self._system, file)
            self.files[step.staged] = self._system.fstat(file)
        finally:
            self._system.close(file)

    def _as_it_should_be(self, area: int, step: Step) -> os.stat_result | None:
        """What is staged, if nothing is to be done to it but to make it durable."""
        try:
            found = self._system.stat(area, step.staged)
        except FileNotFoundError:
            return None
        is_so = (
            stat.S_ISREG(found.st_mode)
            and found.st_size == step.entry.size
            and found.st_mtime_ns == step.entry.mtime_ns
            and stat.S_IMODE(found.st_mode) == self._mode_for(step)
        )
        return found if is_so else None

    def _mode_for(self, step: Step) -> int:
        executable = step.entry.executable
        if step.expected is not None and step.expected.kind == Kind.FILE:
            try:
                old = self._system.stat(*self._tree.place(step.path))
            except OSError:
                return mode_of_new(executable=executable)
            if stat.S_ISREG(old.st_mode):
                return mode_of_old(old.st_mode, executable=executable)
        return mode_of_new(executable=executable)

    def _sync(self, area: int, steps: Sequence[Step]) -> None:
        try:
            if sync_file_system(self._system, area):
                return
        except OSError as error:
            for step in steps:
                self._fail(area, step, error)
            return
        for step in steps:
            try:
                file = self._system.open_staging(area, step.staged, create=False)
                try:
                    sync_file(self._system, file)
                finally:
                    self._system.close(file)
            except OSError as error:
                self._fail(area, step, error)

    def _fail(self, area: int, step: Step, error: OSError) -> None:
        """After a failed sync nobody knows what the disk has of the file: it is staged anew."""
        discard(self._system, area, step.staged)
        self.files.pop(step.staged, None)
        self.problems[step.staged] = kind_of_problem(error, step.path)
