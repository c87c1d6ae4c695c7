"""Random work on several devices that see each other now and then. At rest all have the same tree,
which shows every content that nobody replaced, and none that somebody did."""

import itertools
import random
import shutil
from pathlib import Path

import pytest

from tests.support.devices import Connection, Device, Lab, conflicts

NAMES = ["a", "b", "c", "d/a", "d/b", "d/e/a", "d/e/b", "e/a", "d", "e", "d/e"]
ROUNDS = 6


class History:
    """What was written, and what was replaced by someone who had it before their eyes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.written: set[bytes] = set()
        self.replaced: set[bytes] = set()
        self.moved: set[bytes] = set()
        """What was moved or touched: that stays, though someone else deletes it meanwhile."""

    def act(self, device: Device) -> None:
        path = self._random.choice(NAMES)
        if not self._is_possible(device, path):
            return
        match self._random.randrange(10):
            case 0 | 1 | 2 | 3:
                self._write(device, path)
            case 4 | 5:
                self._remove(device, path)
            case 6:
                self._remove(device, path)
                device.disk.make_directory(path)
            case 7:
                self._remove(device, path)
                device.disk.link(path, f"target {self._random.randrange(3)}")
            case 8:
                if isinstance(shown := device.disk.tree().get(path), bytes):
                    self.moved.add(shown)
                    device.disk.make_executable(path)
            case 9:
                self._rename(device, path)

    def _is_possible(self, device: Device, path: str) -> bool:
        tree = device.disk.tree()
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts))]
        return all(each not in tree or tree[each] is None for each in above)

    def _write(self, device: Device, path: str) -> None:
        if device.disk.tree().get(path, b"") is None:
            self._remove(device, path)
        self._replace(device, path)
        data = f"{path} by {device.name}, {len(self.written)}".encode()
        # Some are of several chunks.
        data += b"." * self._random.choice((0, 0, 0, 0, 300_000))
        self.written.add(data)
        if not isinstance(device.disk.tree().get(path), bytes):
            device.disk.remove(path)
        device.disk.write(path, data)

    def _remove(self, device: Device, path: str) -> None:
        self._replace(device, path)
        device.disk.remove(path)

    def _replace(self, device: Device, path: str) -> None:
        for each, shown in device.disk.tree().items():
            if (each == path or each.startswith(f"{path}/")) and isinstance(shown, bytes):
                self.replaced.add(shown)

    def _rename(self, device: Device, path: str) -> None:
        tree = device.disk.tree()
        target = self._random.choice(NAMES)
        if path not in tree or not self._is_possible(device, target):
            return
        if target == path or target.startswith(f"{path}/") or path.startswith(f"{target}/"):
            return
        self._remove(device, target)
        for each, shown in tree.items():
            if (each == path or each.startswith(f"{path}/")) and isinstance(shown, bytes):
                self.moved.add(shown)
        if (above := target.rpartition("/")[0]) != "":
            device.disk.make_directory(above)
        device.disk.rename(path, target)

    def check_nothing_is_lost(self, tree: dict[str, bytes | str | None]) -> None:
        shown = {content for content in tree.values() if isinstance(content, bytes)}
        assert self.written - self.replaced <= shown | self.moved

    def check(self, tree: dict[str, bytes | str | None]) -> None:
        self.check_nothing_is_lost(tree)
        # Whoever made a conflict copy may not have known that its content was replaced meanwhile.
        at_their_paths = {tree[path] for path in tree.keys() - set(conflicts(tree))}
        assert not at_their_paths & self.replaced - self.moved


class Setbacks:
    """Restarts, after which the index may be gone or an earlier one."""

    def __init__(self, lab: Lab, source: random.Random, directory: Path) -> None:
        self._lab = lab
        self._random = source
        self._directory = directory
        self._backups: dict[str, Path] = {}

    async def strike(self, devices: list[Device]) -> None:
        number = self._random.randrange(len(devices))
        device = devices[number]
        # What a device did not scan before it forgets is no version that it could lose.
        await device.scan()
        kind = self._random.choice(("restart", "lost", "restored", "restored"))
        file = self._lab.index_file(device)
        await self._lab.stop(device)
        backup = self._backups.get(device.name)
        if kind == "lost":
            file.unlink()
        elif kind == "restored" and backup is not None:
            shutil.copy(backup, file)
        else:
            self._backups[device.name] = self._directory / f"{device.name}.backup"
            shutil.copy(file, self._backups[device.name])
        devices[number] = await self._lab.device(device.name, disk=device.disk)


async def drop_tombstones(device: Device, devices: list[Device]) -> None:
    """As housekeeping does."""
    await device.index.drop_tombstones([other.id for other in devices if other is not device])


async def play(directory: Path, seed: int, *, setbacks: bool = False) -> None:
    lab = Lab(directory, seed=seed)
    source = random.Random(seed)
    history = History(seed)
    devices = await lab.devices("ada bob cyd"[: source.choice((7, 11))])
    strikes = Setbacks(lab, source, directory)
    try:
        links: list[Connection] = []
        for _ in range(ROUNDS):
            for _ in range(source.randrange(8)):
                device = source.choice(devices)
                history.act(device)
                if source.random() < 0.3:
                    await device.scan()
                if source.random() < 0.3:
                    await device.work()
            if setbacks and source.random() < 0.4:
                await strikes.strike(devices)
            for one, other in itertools.combinations(devices, 2):
                if source.random() < 0.4 and not one.is_connected_to(other):
                    links.append(lab.connect(one, other))
            if source.random() < 0.4:
                await drop_tombstones(source.choice(devices), devices)
            source.shuffle(links)
            while links and source.random() < 0.6:
                await links.pop().cut()
        for one, other in itertools.combinations(devices, 2):
            if not one.is_connected_to(other):
                lab.connect(one, other)
        tree = await lab.converge(devices)
        if setbacks:
            history.check_nothing_is_lost(tree)
        else:
            history.check(tree)
        for device in devices:
            # Chunks of large files may be left, in case that they are of use.
            assert all(name.startswith("c-") for name in device.disk.staged_names())
            assert device.problems.listed() == []
    finally:
        await lab.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
async def test_devices_end_alike_and_lose_nothing(tmp_path: Path, seed: int) -> None:
    await play(tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 108))
async def test_a_lost_or_restored_index_costs_nobody_a_content(tmp_path: Path, seed: int) -> None:
    await play(tmp_path, seed, setbacks=True)
