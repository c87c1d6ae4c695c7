"""Programs for tests of the race itself: they copy trees within the process, or fail to."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.race.peers import Failed, Program


class Copier:
    """Brings the author's tree to all others whenever it is asked whether it rests."""

    def __init__(self, base: Path, devices: int, *, flaw: str = "") -> None:
        self.roots: Sequence[Path] = [base / f"{number}" for number in range(devices)]
        for root in self.roots:
            root.mkdir()
        self._flaw = flaw
        self._runs = False
        self._begun = 0

    def begin(self) -> None:
        assert not self._runs
        self._runs = True
        self._begun += 1

    def rests(self, files: int) -> bool:
        assert self._runs
        if self._flaw == "ends":
            raise Failed("it ended with 3")
        author, *others = self.roots
        for root in others:
            if self._flaw == "does-nothing":
                continue
            shutil.rmtree(root)
            shutil.copytree(author, root)
            if self._flaw == "spoils":
                self._spoil(root)
        return True

    def _spoil(self, root: Path) -> None:
        """Another byte, with the same size and times."""
        path = next(path for path in sorted(root.rglob("*")) if path.is_file())
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        shutil.copystat(self.roots[0] / path.relative_to(root), path)

    def processes(self) -> Sequence[Sequence[int]]:
        return [[] for _ in self.roots]

    def sent_by_author(self) -> int | None:
        return 100 * self._begun

    def index_bytes(self) -> int | None:
        return None

    def stop(self) -> None:
        self._runs = False

    def close(self) -> None:
        self.stop()


def fake(
    name: str = "p2psync",
    *,
    flaw: str = "",
    version: str | None = "1.0",
    cannot: frozenset[str] = frozenset({"edit"}),
) -> Program:
    make = partial(Copier, flaw=flaw)
    return Program(name, name.capitalize(), version, make, cannot, look_every_s=0.001)
