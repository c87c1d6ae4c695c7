"""What the sampler meets while it looks at directories that change."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.oracle import sampler as module
from tests.oracle.ledger import Ledger
from tests.oracle.sampler import Sampler


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("away", path)])
def test_what_took_the_place_of_a_listed_file_is_not_read(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "once a file")

    def listed(*_: object) -> Iterator[str]:
        yield "once a file"
        yield "gone"

    monkeypatch.setattr(module, "_files", listed)
    before = len(os.listdir("/proc/self/fd"))
    sampler = Sampler({"dev0": tmp_path})
    sampler.look("dev0")
    assert sampler.files_read == 0
    assert sampler.verdict(Ledger()) == []
    assert len(os.listdir("/proc/self/fd")) == before
