"""Two honest daemons and a member of their group that is not, for all the tests of one file."""

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from p2psync.protocol.messages import FolderOffer
from tests.e2e.device import Device
from tests.e2e.harness import Lab, assert_sound_logs, everywhere
from tests.e2e.hostile import Conversation, Mallory
from tests.e2e.processes import eventually

RSS_MIB = 300
DESCRIPTORS = 100
DIARY = "diary"
"""A folder that is shared between the honest ones only."""
SECRET = b"what only the diary holds"

_numbers = itertools.count(1)


class Site(NamedTuple):
    ada: Device
    bob: Device
    mallory: Mallory

    def talk(self, **how: Any) -> Conversation:
        """A conversation with ada in which mallory takes part in the folder, with a new index."""
        conversation = self.mallory.connect(self.ada, **how)
        conversation.share()
        if how.get("reads", True):
            conversation.until(lambda: conversation.heard_of(FolderOffer))
        return conversation

    def check(self, *, rss_mib: int = RSS_MIB) -> None:
        """Ada and bob are in touch, within bounds, and have complained in sentences only."""
        number = next(_numbers)
        one, other = (self.ada, self.bob) if number % 2 else (self.bob, self.ada)
        one.write(f"check {number}", f"{number}")
        everywhere([other], f"check {number}", f"{number}".encode())
        assert_sound_logs({device.name: device.log_text() for device in (self.ada, self.bob)})
        for device in (self.ada, self.bob):
            assert peak_mib(device) < rss_mib
            assert descriptors(device) < DESCRIPTORS

    def outside(self) -> Path:
        """An empty directory that no folder holds."""
        place = Path(tempfile.mkdtemp(dir=self.ada.root.parent)) / "outside"
        place.mkdir()
        return place

    def is_refused(self, talk: Conversation, before: int, why: str) -> None:
        """Wait until ada has ended it and says why, in its log after that place."""
        talk.is_dropped()

        def told() -> bool:
            lines = self.ada.log_text()[before:].splitlines()
            return any("reason=" in line and why in line for line in lines)

        eventually(told, within=20, what=f"ada says “{why}” in its log")


def _process(device: Device) -> Path:
    assert device.process is not None and device.process.poll() is None, f"{device.name} ended"
    return Path(f"/proc/{device.process.pid}")


def peak_mib(device: Device) -> int:
    """The most memory that the daemon ever had."""
    status = (_process(device) / "status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def descriptors(device: Device) -> int:
    """How many the daemon has open."""
    return len(list((_process(device) / "fd").iterdir()))


@contextlib.contextmanager
def hostile_site(base: Path) -> Iterator[Site]:
    lab = Lab(base)
    try:
        ada, bob = lab.group("ada", "bob", folder=None)
        mallory = Mallory(base / "mallory")
        with mallory:
            mallory.pair(ada)
        eventually(lambda: bob.peer("mallory"), within=20, what="bob heard of the new member")
        for device in (ada, bob):
            device.add_folder()
        diary = base / DIARY
        diary.mkdir()
        (diary / "secret").write_bytes(SECRET)
        ada.ok("folder", "add", diary, "--name", DIARY, "--with", "bob")
        yield Site(ada, bob, mallory)
        assert_sound_logs(lab.logs())
    finally:
        lab.close()
        shutil.rmtree(base, ignore_errors=True)
