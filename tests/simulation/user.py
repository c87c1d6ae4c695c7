"""The people who work on the devices' files, each write with a content of its own."""

import random

from p2psync.core.relpath import RelPath
from p2psync.ports import Step
from tests.simulation.device import Device
from tests.simulation.oracle import Oracle, is_copy
from tests.simulation.trace import Trace

NAMES = ["a", "b.txt", "c", "d/a", "d/b", "d/e/a", "d/e/b", "e/a", "d", "e", "d/e"]
_LARGE = 600_000
_COPIES = 0.15
"""The share of what is done to conflict copies, where there are any."""


class User:
    def __init__(
        self, oracle: Oracle, source: random.Random, trace: Trace, *, large: float
    ) -> None:
        self._oracle = oracle
        self._source = source
        self._trace = trace
        self._large = large
        """The share of writes that are of several chunks."""
        self._written = 0

    def new_content(self) -> bytes:
        """Mostly as long as others are."""
        self._written += 1
        content = b"%06d" % self._written
        chance = self._source.random()
        if chance < self._large:
            # Such contents differ in their first chunk alone, or in their last.
            body = random.Random(_LARGE).randbytes(_LARGE)
            content = content + body if self._written % 2 else b"large " + body + content
        elif chance > 0.8:
            content += b"." * self._source.randrange(30)
        return content

    # --- what they do ------------------------------------------------------------------------

    def act(self, device: Device, path: str | None = None) -> None:
        path = path if path is not None else self._any_path(device)
        if not self._is_possible(device, path):
            return
        tree = device.disk.tree()
        is_file = isinstance(tree.get(path), bytes)
        match self._source.randrange(12):
            case 0 | 1 | 2 | 3 | 4:
                self.write(device, path)
            case 5 | 6:
                self.remove(device, path)
            case 7:
                self.remove(device, path)
                device.disk.make_directory(path)
                self._did(device, "mkdir", path)
            case 8:
                self._make_link(device, path)
            case 9 | 10:
                self._rename(device, path)
            case 11 if is_file and self._source.random() < 0.5:
                self.make_executable(device, path)
            case 11 if is_file:
                self.touch(device, path)

    def _any_path(self, device: Device) -> str:
        copies = sorted(path for path in device.disk.tree() if is_copy(path))
        if copies and self._source.random() < _COPIES:
            return self._source.choice(copies)
        return self._source.choice(NAMES)

    def interfere(self, device: Device, step: Step) -> None:
        """Between the system calls of a commit, where it is about to change something."""
        path = step.path
        if step.source is not None and self._source.random() < 0.5:
            path = step.source
        if not is_copy(path):
            self.act(device, path)

    def write(self, device: Device, path: str, content: bytes | None = None) -> None:
        content = content if content is not None else self.new_content()
        shown = device.disk.tree().get(path, "")
        if not isinstance(shown, bytes):
            self.remove(device, path)
        self._supersede(device, path)
        self._oracle.wrote(content)
        if self._source.random() < 0.5:
            device.disk.write(path, content)
        else:
            device.disk.replace_file(path, content)
        self._did(device, "write", path, content)

    def restore(self, device: Device, path: str) -> None:
        """From a backup: what it was before the disk damaged it."""
        ((_, content),) = self._contents(device, path)
        # It may be superseded elsewhere, and stays so.
        self._oracle.moved(content)
        device.disk.write(path, content)
        self._did(device, "restore", path, content)

    def remove(self, device: Device, path: str) -> None:
        if path not in device.disk.tree():
            return
        self._supersede(device, path)
        device.disk.remove(path)
        self._did(device, "remove", path)

    def make_executable(self, device: Device, path: str) -> None:
        self._move(device, path)
        device.disk.make_executable(path)
        self._did(device, "chmod", path)

    def touch(self, device: Device, path: str) -> None:
        self._move(device, path)
        device.disk.touch(path)
        self._did(device, "touch", path)

    def _make_link(self, device: Device, path: str) -> None:
        self.remove(device, path)
        device.disk.link(path, f"target {self._source.randrange(3)}")
        self._did(device, "link", path)

    def _rename(self, device: Device, path: str) -> None:
        tree = device.disk.tree()
        target = self._source.choice(NAMES)
        if path not in tree or not self._is_possible(device, target):
            return
        if target == path or target.startswith(f"{path}/") or path.startswith(f"{target}/"):
            return
        self.remove(device, target)
        self._move(device, path)
        if (above := target.rpartition("/")[0]) != "":
            device.disk.make_directory(above)
        device.disk.rename(path, target)
        self._did(device, "rename", path)
        self._did(device, "renamed", target)

    def _is_possible(self, device: Device, path: str) -> bool:
        tree = device.disk.tree()
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts))]
        return all(each not in tree or tree[each] is None for each in above)

    # --- what becomes of what was there ------------------------------------------------------

    def _supersede(self, device: Device, path: str) -> None:
        shown = [content for _, content in self._contents(device, "")]
        for each, content in self._contents(device, path):
            is_noticed = device.notices(each, content)
            # A copy that goes says nothing of the content's place at the original's path, where
            # another device may just have elected it.
            is_all = shown.count(content) < 2 and not is_copy(each)
            self._oracle.superseded(content, was_noticed=is_noticed and is_all)

    def _move(self, device: Device, path: str) -> None:
        for _, content in self._contents(device, path):
            self._oracle.moved(content)

    def _contents(self, device: Device, path: str) -> list[tuple[RelPath, bytes]]:
        """As they were written, whatever the disk made of them."""
        found = device.disk.data_at_and_below(path)
        return [(each, self._oracle.meant(data)) for each, data in found]

    def _did(self, device: Device, what: str, path: str, content: bytes = b"") -> None:
        device.disk.edits += 1
        self._trace.count(what, f"{device.name} {path} {content[:6].decode()}")
        paths = {RelPath(path)}
        if (above := path.rpartition("/")[0]) != "":
            paths.add(RelPath(above))
        device.changed_on_disk(paths)
