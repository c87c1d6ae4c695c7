"""Three devices at work on real trees: the standard library and a git repository with history."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.e2e.device import Device
from tests.e2e.harness import Lab, converge
from tests.e2e.processes import in_parallel
from tests.e2e.trees import assert_same_trees

_IGNORED = shutil.ignore_patterns("site-packages", "dist-packages", "config-3*", "idle_test")


def _standard_library(target: Path) -> None:
    shutil.copytree(sysconfig.get_paths()["stdlib"], target, symlinks=True, ignore=_IGNORED)


@pytest.mark.limit(150)
def test_after_everyone_changed_the_standard_library_all_trees_are_identical(lab: Lab) -> None:
    devices = lab.group("ada", "bob", "cyd", folder=None)
    ada, bob, cyd = devices
    ada.root.mkdir(parents=True)
    _standard_library(ada.root / "lib")
    in_parallel(lambda device: device.add_folder(), devices)
    tree = converge(devices, within=90)
    assert len(tree) > 1500

    for device, package in ((ada, "email"), (bob, "json"), (cyd, "asyncio")):
        _change_a_bit_of_everything(device, package)
    converge(devices, within=60)

    after = assert_same_trees({device.name: device.root for device in devices})
    for device, package in ((ada, "email"), (bob, "json"), (cyd, "asyncio")):
        base = b"lib/" + package.encode()
        assert base + b"/added by " + device.name.encode() + b".py" in after
        assert base + b"/__init__.py" not in after
        assert after[base + b"/renamed.py"].kind == "file"
        assert after[base + b"/link to renamed"].target == b"renamed.py"
        assert after[base + b"/an/empty/directory"].kind == "directory"
    assert after[b"lib/email/mime/base.py"].executable
    assert b"lib/moved tests" in after
    assert b"lib/unittest" not in after
    assert not [path for path in after if b"conflict" in path and b"(conflict " in path]


def _change_a_bit_of_everything(device: Device, package: str) -> None:
    base = device.root / "lib" / package
    names = sorted(path.name for path in base.glob("*.py") if path.name != "__init__.py")
    with (base / names[0]).open("a") as file:
        file.write(f"# edited on {device.name}\n")
    (base / f"added by {device.name}.py").write_text(f"print({device.name!r})\n")
    (base / "__init__.py").unlink()
    (base / names[1]).rename(base / "renamed.py")
    (base / "link to renamed").symlink_to("renamed.py")
    (base / "an" / "empty" / "directory").mkdir(parents=True)
    (base / names[2]).chmod(0o755)
    os.utime(base / names[3], ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    if device.name == "ada":
        (base / "mime" / "base.py").chmod(0o755)
        (device.root / "lib" / "unittest").rename(device.root / "lib" / "moved tests")


class Repository:
    """A git work tree on one device. Never takes optional locks, so looking changes nothing."""

    def __init__(self, place: Path, author: str) -> None:
        self.place = place
        self._author = author

    def git(self, *words: str) -> str:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.place.parent),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_AUTHOR_NAME": self._author,
            "GIT_COMMITTER_NAME": self._author,
            "GIT_AUTHOR_EMAIL": f"{self._author}@example.org",
            "GIT_COMMITTER_EMAIL": f"{self._author}@example.org",
            "LC_ALL": "C",
        }
        done = subprocess.run(
            ["git", "-c", "gc.auto=0", "-c", "init.defaultBranch=main", *words],
            cwd=self.place,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"git {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def commit(self, path: str, content: str) -> None:
        target = self.place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"{self._author}: {path}")

    def history(self, branch: str = "main") -> list[str]:
        return self.git("log", "--format=%s", branch).splitlines()

    def assert_sound(self) -> None:
        found = self.git("fsck", "--full", "--strict")
        assert "error" not in found
        assert "missing" not in found
        assert self.git("status", "--porcelain") == ""


@pytest.mark.limit(120)
def test_a_git_repository_that_three_devices_commit_to_stays_sound_on_each(lab: Lab) -> None:
    devices = lab.group("ada", "bob", "cyd", folder=None)
    repositories = [Repository(device.root / "project", device.name) for device in devices]
    ada, bob, cyd = repositories
    ada.place.mkdir(parents=True)
    _make_history(ada)
    in_parallel(lambda device: device.add_folder(), devices)
    converge(devices)

    bob.commit("from bob.txt", "bob was here\n")
    bob.git("gc", "--quiet", "--aggressive", "--prune=now")
    converge(devices)

    cyd.git("checkout", "--quiet", "-b", "cyd")
    cyd.commit("on a branch.txt", "cyd was here\n")
    cyd.git("checkout", "--quiet", "main")
    cyd.git("merge", "--quiet", "--no-edit", "--no-ff", "cyd")
    converge(devices)

    ada.git("rebase", "--quiet", "topic", "main")
    ada.git("tag", "--annotate", "--message", "done", "v2")
    converge(devices)

    for repository in repositories:
        repository.assert_sound()
        assert repository.history() == ada.history()
        assert {"bob: from bob.txt", "cyd: on a branch.txt"} <= set(repository.history())
        assert repository.git("tag", "--list").split() == ["v1", "v2"]


def _make_history(repository: Repository) -> None:
    repository.git("init", "--quiet")
    for number in range(24):
        repository.commit(f"src/module_{number % 7}.py", f"value = {number}\n" * 40)
    repository.git("gc", "--quiet")
    repository.git("tag", "v1")
    repository.git("checkout", "--quiet", "-b", "topic")
    for number in range(8):
        repository.commit(f"topic/{number}.txt", f"topic {number}\n")
    repository.git("checkout", "--quiet", "main")
    for number in range(8):
        repository.commit(f"docs/{number}.md", f"# page {number}\n")


def test_an_identical_populated_folder_joins_without_moving_content(lab: Lab) -> None:
    devices = lab.group("ada", "bob", folder=None)
    ada, bob = devices
    block = os.urandom(4_000_000)
    ada.write("big.bin", block)
    for number in range(300):
        ada.write(f"small/{number}.txt", f"{number}\n" * 500)
    shutil.copytree(ada.root, bob.root, copy_function=shutil.copy2)
    before = bob.traffic()

    in_parallel(lambda device: device.add_folder(), devices)
    tree = converge(devices)

    assert len(tree) == 302
    assert bob.traffic() - before < 400_000
    assert ada.conflicts() == bob.conflicts() == []
