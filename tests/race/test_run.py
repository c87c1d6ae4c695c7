"""A program's way through a scenario: what counts as done, and what as failed."""

import io
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.race import on_p2psync
from tests.race.batches import Batch, programs
from tests.race.fakes import fake
from tests.race.peers import Program
from tests.race.record import Figures
from tests.race.run import Done, Settings, agree, outline, run
from tests.race.test_works import TINY
from tests.race.works import Scenario, scenarios

SETTINGS = Settings(TINY, limit_s=60, tell=lambda line: None)
IMPATIENT = replace(SETTINGS, limit_s=0.05)


def scenario(name: str) -> Scenario:
    return next(one for one in scenarios(TINY) if name in [each.name for each in one.works])


def race(
    program: Program, base: Path, *wanted: str, settings: Settings = SETTINGS
) -> dict[str, Figures]:
    """All of it has to succeed."""
    done = tried(program, base, *wanted, settings=settings)
    assert {name: one for name, one in done.items() if isinstance(one, str)} == {}
    return {name: one for name, one in done.items() if isinstance(one, Figures)}


def tried(program: Program, base: Path, *wanted: str, settings: Settings = SETTINGS) -> Done:
    return run(program, scenario(wanted[0]), frozenset(wanted), base, settings)


def test_only_what_is_wanted_is_told_and_what_goes_before_it_is_done(tmp_path: Path) -> None:
    assert race(fake(), tmp_path, "append").keys() == {"append"}

    assert (tmp_path / "1" / "big.bin").stat().st_size == TINY.big + 960 + 500
    assert not (tmp_path / "1" / "copy of big.bin").exists()


def test_a_program_that_cannot_do_a_work_does_none_after_it(tmp_path: Path) -> None:
    cannot_edit = fake(cannot=frozenset({"edit"}))

    assert race(cannot_edit, tmp_path, "small", "move", "edit", "idle").keys() == {"small", "move"}


def test_what_the_author_sent_is_of_this_work_alone(tmp_path: Path) -> None:
    done = race(fake(), tmp_path, "big", "insert")

    assert [one.sent_by_author for one in done.values()] == [100, 100]


def test_before_a_cold_start_as_much_is_written_and_deleted_as_all_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Counted(io.BytesIO):
        def close(self) -> None:
            sizes.append(len(self.getvalue()))
            super().close()

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: Counted())
    race(fake(), tmp_path, "big", "insert")

    assert sizes == [2 * TINY.big, 2 * (TINY.big + TINY.inserted)]


def test_to_three_peers_is_to_all_of_them(tmp_path: Path) -> None:
    race(fake(), tmp_path, "small-to-3")

    counts = [len(outline(tmp_path / f"{number}")) for number in range(4)]
    assert counts == [TINY.files] * 4


@pytest.mark.parametrize(
    ("flaw", "said"),
    [
        ("ends", "it ended with 3"),
        ("does-nothing", "not done within 0.05 s"),
        ("spoils", "peer 1 differs in 1 paths afterwards"),
    ],
)
def test_a_program_that_does_not_do_its_work_has_failed(
    flaw: str, said: str, tmp_path: Path
) -> None:
    done = tried(fake(flaw=flaw), tmp_path, "small", "move", settings=IMPATIENT)

    assert said in str(done["small"])
    assert done["move"] == "not tried after “small” failed"


def test_times_that_were_rounded_to_microseconds_agree_and_others_do_not() -> None:
    exact = {"a": (1, 1_000_000_007_930)}

    assert agree(exact, {"a": (1, 1_000_000_008_000)})
    assert not agree(exact, {"a": (1, 1_000_001_008_000)})
    assert not agree(exact, {"a": (2, 1_000_000_007_930)})
    assert not agree(exact, exact | {"b": (1, 1)})


def test_what_programs_keep_in_a_root_is_no_part_of_the_tree(tmp_path: Path) -> None:
    for path in (".p2psync/folder", ".stfolder/marker", "below/.p2psync/of the user"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()

    assert outline(tmp_path).keys() == {"below/.p2psync/of the user"}


def test_a_program_that_runs_once_and_ends_takes_part(tmp_path: Path) -> None:
    copy = next(program for program in programs() if program.name == "cp")

    done = race(copy, tmp_path, "big", "insert", "append", "copy")

    assert done.keys() == {"big", "insert", "append", "copy"}
    assert all(one.seconds > 0 and one.index is None for one in done.values())


def test_the_last_words_of_a_program_that_ends_with_an_error_are_told(tmp_path: Path) -> None:
    class Unlucky(Batch):
        def fetch(self, device: int) -> list[str]:
            return ["sh", "-c", "echo Out of luck. >&2; exit 3"]

    done = tried(Program("unlucky", "Unlucky", "1", Unlucky), tmp_path, "small")

    assert done == {"small": "it ended with 3: Out of luck."}


def test_a_server_that_ends_is_no_server(tmp_path: Path) -> None:
    class Down(Batch):
        def serve(self) -> list[str]:
            return ["sh", "-c", "echo No room. >&2; exit 4"]

    done = tried(Program("down", "Down", "1", Down), tmp_path, "small")

    assert done == {"small": "its server ended with 4: No room."}


@pytest.mark.slow
@pytest.mark.e2e
def test_p2psync_goes_through_all_works_of_a_tree(tmp_path: Path) -> None:
    done = race(on_p2psync.program(), tmp_path, "small", "move", "edit", "idle")

    assert done.keys() == {"small", "move", "edit", "idle"}
    small, edit, idle = done["small"], done["edit"], done["idle"]
    assert small.sent_by_author is not None
    assert small.index is not None
    assert edit.longest_s is not None
    assert small.wire > small.sent_by_author > TINY.files * 4096
    assert small.cpu_s > 0
    assert min(small.peaks_mib) > 20
    assert small.index > 0
    assert 0 < edit.seconds <= edit.longest_s
    assert idle.seconds >= TINY.idle_s
