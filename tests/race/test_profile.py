"""Flame graphs, by a py-spy that only notes what it is told."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.processes import eventually
from tests.race import cli
from tests.race.fakes import fake
from tests.race.peers import Failed
from tests.race.profile import Profiler
from tests.race.run import Settings, run
from tests.race.test_run import scenario
from tests.race.test_works import TINY

_SPY = """#!/bin/sh
trap 'exit 0' INT
for last; do :; done
echo "$*" > "$last"
[ -e fail ] && { echo "No rights." >&2; exit 1; }
while :; do read -r line < never; done
"""


@pytest.fixture
def profiler(tmp_path: Path) -> Profiler:
    spy = tmp_path / "py-spy"
    spy.write_text(_SPY)
    spy.chmod(0o755)
    os.mkfifo(tmp_path / "never")
    return Profiler(spy, tmp_path)


def _written(path: Path) -> None:
    eventually(path.exists, within=10, what=f"{path.name} is there")


def test_each_process_is_watched_until_the_work_is_done(profiler: Profiler) -> None:
    with profiler.watch("small", [[11], [12], []]):
        for name in ("small-author.svg", "small-peer-1.svg"):
            _written(profiler.directory / name)

    told = {path.name: path.read_text() for path in profiler.directory.glob("*.svg")}
    assert told.keys() == {"small-author.svg", "small-peer-1.svg"}
    assert "--pid 11 " in told["small-author.svg"]
    assert "--pid 12 " in told["small-peer-1.svg"]


def test_what_kept_it_from_looking_is_told(profiler: Profiler) -> None:
    (profiler.directory / "fail").touch()

    with (
        pytest.raises(Failed, match=r"py-spy: No rights\."),
        profiler.watch("small", [[11]]),
    ):
        _written(profiler.directory / "small-author.svg")


def test_it_looks_at_each_work_from_the_start_of_the_programs(tmp_path: Path) -> None:
    watched = []

    def watch(work: str, processes: Sequence[Sequence[int]]) -> AbstractContextManager[None]:
        watched.append(work)
        raise Failed("seen")

    settings = replace(Settings(TINY, 60, lambda line: None), watch=watch)
    done = run(fake(), scenario("small"), {"small", "move"}, tmp_path, settings)

    assert watched == ["small"]
    assert done["small"] == "seen"


def test_without_py_spy_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tests.race.namespace.enter", lambda words: None)

    assert cli.main(["--works", "idle", "--profile", str(tmp_path)]) == 2
    assert "py-spy" in capsys.readouterr().err


def test_what_is_measured_meanwhile_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--profile", str(tmp_path), "--write-docs"])
