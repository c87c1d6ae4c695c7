"""`scripts/race`, without a namespace: with fake programs, and from a file."""

from pathlib import Path

import pytest

from tests.e2e.processes import REPOSITORY
from tests.race import cli, page, record
from tests.race.fakes import fake
from tests.race.page import BEGIN, END
from tests.race.peers import Program
from tests.race.record import Race
from tests.race.run import Settings
from tests.race.test_report import a_race
from tests.race.test_works import TINY
from tests.race.works import Sizes, scenarios
from tests.support import syncthing


def raced(
    place: Path, *contenders: Program, works: str = "small", repeat: int = 1
) -> tuple[Race, list[str]]:
    told: list[str] = []
    wanted = frozenset(works.split(","))
    settings = Settings(TINY, limit_s=0.05, tell=told.append)
    done = cli.race(contenders, wanted, settings, repeat=repeat, place=place)
    return done, told


def test_a_program_that_is_missing_is_said_and_takes_no_part(tmp_path: Path) -> None:
    done, told = raced(tmp_path, fake(), fake("gone", version=None))

    assert done.absent == ("Gone",)
    assert [one.name for one in done.contenders] == ["p2psync"]
    assert done.works[0].results.keys() == {"p2psync"}
    assert told[0] == "Gone is not installed: nothing is known about it."


def test_a_syncthing_that_is_not_there_is_missing(tmp_path: Path) -> None:
    assert syncthing.version(tmp_path / "syncthing") is None
    missing = {one.name: one.version for one in cli.programs(tmp_path / "syncthing")}

    assert missing["syncthing"] is None
    assert missing["p2psync"] is not None
    assert missing["cp"] is not None


def test_programs_take_turns_and_every_run_is_kept(tmp_path: Path) -> None:
    done, told = raced(tmp_path, fake(), fake("other"), repeat=3)

    results = done.works[0].results
    assert [len(one.runs) for one in results.values()] == [3, 3]
    assert [line.partition(":")[0] for line in told] == ["P2psync", "Other"] * 3


def test_works_that_take_long_may_have_one_run_and_the_page_says_so(tmp_path: Path) -> None:
    wanted = frozenset({"small", "move", "big"})
    done = cli.race(
        [fake(), fake("other")],
        wanted,
        Settings(TINY, limit_s=0.05, tell=lambda _: None),
        repeat=3,
        place=tmp_path,
        once=frozenset({"move", "big"}),
    )

    runs = {work.name: [len(one.runs) for one in work.results.values()] for work in done.works}
    assert runs == {"small": [3, 3], "move": [1, 1], "big": [1, 1]}
    titles = [work.title for work in done.works[1:]]
    assert f"- median of 3 runs; one run of: {'; '.join(titles)}\n" in page.rendered(done)


def test_works_that_were_not_asked_for_are_not_told(tmp_path: Path) -> None:
    done, _ = raced(tmp_path, fake(), works="insert,copy")

    assert [work.name for work in done.works] == ["insert", "copy"]


def test_a_failure_is_kept_and_the_race_goes_on(tmp_path: Path) -> None:
    done, told = raced(tmp_path, fake(flaw="ends"), fake("other"), works="small,big")

    assert [work.results["p2psync"].failed for work in done.works] == ["it ended with 3"] * 2
    assert all(work.results["other"].median for work in done.works)
    assert told[0] == "P2psync: “small” failed: it ended with 3"


def test_nothing_is_left_where_it_worked(tmp_path: Path) -> None:
    raced(tmp_path, fake(), fake("other", flaw="ends"))

    assert list(tmp_path.iterdir()) == []


def test_the_documentation_can_be_written_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record.write(a_race(), tmp_path / "race.json")
    (tmp_path / "performance.md").write_text(f"{BEGIN}\n{END}\n")

    code = cli.main(["--from-json", str(tmp_path / "race.json"), "--write-docs"], docs=tmp_path)

    assert code == 0
    assert "1 : 2.5" in capsys.readouterr().out
    assert "5.00 (2.5)" in (tmp_path / "performance.md").read_text()
    assert (tmp_path / "performance.svg").exists()


def test_a_file_that_is_missing_is_told_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--from-json", str(tmp_path / "absent")]) == 2

    assert (
        capsys.readouterr().err == f"{tmp_path}/absent cannot be read: No such file or directory.\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--works", "small,walk"],
        ["--systems", "carrier-pigeon"],
        ["--repeat", "0"],
        ["--scale", "0"],
        ["--dir", "/absent"],
    ],
)
def test_what_is_not_known_is_refused_before_anything_runs(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)

    assert ended.value.code == 2
    assert "usage: race" in capsys.readouterr().err


def test_a_place_below_which_sockets_would_have_too_long_names_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / ("long" * 20)
    place.mkdir()

    with pytest.raises(SystemExit):
        cli.main(["--dir", str(place)])

    assert "is too long for the names of sockets" in " ".join(capsys.readouterr().err.split())


def test_the_documentation_names_every_work_and_program_and_has_marks_for_the_next_race() -> None:
    text = (REPOSITORY / "docs" / "performance.md").read_text()
    works = [work.name for one in scenarios(Sizes()) for work in one.works]
    titles = [one.title.split()[0] for one in cli.programs(syncthing.DEBIANS)]

    assert [name for name in works if f"`{name}`" not in text] == []
    assert [title for title in titles if f"\n| {title} |" not in text] == []
    assert text.count(BEGIN) == text.count(END) == 1
    assert text.index(BEGIN) < text.index(END)
