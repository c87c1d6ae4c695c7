"""What was found is told as it is: to who ran it, in a file, and in the documentation."""

from pathlib import Path

import pytest

from tests.race import page, record, report
from tests.race.measures import seconds, size
from tests.race.plot import draw
from tests.race.record import Contender, Figures, Machine, Race, Result, WorkDone, median

OURS = Figures(2.0, 4096, 1.5, (60.0, 70.0, 80.0), sent_by_author=3000, index=2048)
THEIRS = Figures(5.0, 2048, 1.5, (30.0, 40.0, 35.0))


def a_race(*, failed: str | None = None) -> Race:
    return Race(
        Machine("6.1", "A processor", 2, 24, "ext4", "3.11.7", 0.1),
        1,
        (Contender("p2psync", "p2psync", "0.1"), Contender("other", "Other", "7")),
        ("Third",),
        (
            WorkDone(
                "small",
                "7 files, first sync",
                {"p2psync": Result((OURS,)), "other": Result((THEIRS,), failed)},
            ),
            WorkDone("edit", "3 edits", {"p2psync": Result((OURS,))}),
            WorkDone("idle", "30 s", {"p2psync": Result((OURS,))}, is_timed=False),
        ),
    )


def row(text: str, head: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.strip().startswith(head))
    return [cell.strip() for cell in line.strip().strip("|").replace("   ", "|").split("|") if cell]


def test_a_table_has_the_ratio_of_ours_to_theirs() -> None:
    first = report.text(a_race())

    assert row(first, "p2psync")[1:3] == ["2.00", "4.0 KiB"]
    assert row(first, "Other")[1:3] == ["5.00 (1 : 2.5)", "2.0 KiB (1 : 0.5)"]
    assert "60 + 80 MiB" in first
    assert "longest" not in first


def test_what_a_program_cannot_do_is_a_dash_and_what_it_failed_at_is_told() -> None:
    told = report.text(a_race(failed="it ended with 3"))
    small, edit, _ = told.split("\n\n")

    assert row(small, "Other ")[1] == "failed"
    assert "Other failed: it ended with 3" in small
    assert row(edit, "Other")[1] == "-"


def test_the_seconds_of_a_given_time_are_told_nowhere() -> None:
    idle = report.text(a_race()).split("\n\n")[2]
    seconds_table, *others = page.rendered(a_race()).split("###")[1:]

    assert "CPU seconds" in idle
    assert row(idle, "on the wire")[0] == "on the wire"
    assert "| 30 s |" not in seconds_table
    assert all("| 30 s |" in table for table in others)
    assert "30 s" not in draw(a_race())


def test_the_median_is_of_each_figure_by_itself() -> None:
    runs = [
        Figures(1.0, 300, 9.0, (1.0, 6.0), index=10),
        Figures(2.0, 100, 8.0, (3.0, 5.0), index=None),
        Figures(9.0, 200, 1.0, (2.0, 4.0), index=30),
    ]

    assert median(runs) == Figures(2.0, 200, 8.0, (2.0, 5.0))


def test_one_failed_run_of_several_is_a_failure() -> None:
    assert Result((OURS, OURS), "it ended").median is None


def test_a_race_is_read_as_it_was_written(tmp_path: Path) -> None:
    record.write(a_race(), tmp_path / "race.json")

    assert record.read(tmp_path / "race.json") == a_race()


@pytest.mark.parametrize("text", ["", "{}", '{"machine": 1}', "[]"])
def test_a_file_that_holds_no_race_is_refused_with_a_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "race.json"
    path.write_text(text)

    with pytest.raises(ValueError, match=r"does not hold a race: .*\.$"):
        record.read(path)


def test_a_page_gets_the_tables_between_its_marks_and_a_plot_beside_it(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n\n{page.BEGIN}\nan older race\n{page.END}\n\nafter\n")

    page.write(a_race(), tmp_path)
    page.write(a_race(), tmp_path)

    text = document.read_text()
    assert text.startswith(f"before\n\n{page.BEGIN}\n")
    assert text.endswith(f"{page.END}\n\nafter\n")
    assert "an older race" not in text
    assert row(text, "| 7 files") == ["7 files, first sync", "2.00", "5.00 (2.5)"]
    assert row(text, "| 3 edits") == ["3 edits", "2.00", "-"]
    assert "p2psync 0.1, Other 7" in text
    assert "not installed there: Third" in text
    assert "](performance.svg)" in text
    assert (tmp_path / "performance.svg").read_text() == draw(a_race())


def test_a_page_says_what_failed() -> None:
    text = page.rendered(a_race(failed="it ended with 3"))

    assert "- 7 files, first sync: Other: it ended with 3" in text
    assert row(text, "| 7 files")[2] == "failed"


def test_a_page_without_marks_is_left_as_it_is(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("no marks")

    with pytest.raises(ValueError, match="lacks the lines"):
        page.write(a_race(), tmp_path)

    assert document.read_text() == "no marks"
    assert list(tmp_path.iterdir()) == [document]


def test_a_plot_is_the_same_each_time_and_nothing_in_it_runs_or_is_fetched() -> None:
    drawn = draw(a_race())

    assert drawn == draw(a_race())
    assert "7 files, first sync" in drawn
    assert "<script" not in drawn
    assert "<!--" not in drawn
    assert "href" not in drawn
    assert "@import" not in drawn


def test_figures_are_as_long_as_they_are_exact() -> None:
    assert [seconds(value) for value in (0.123, 9.876, 45.67, 123.4)] == [
        *("0.12", "9.88", "45.7", "123")
    ]
    assert [size(value) for value in (0, 999, 1024, 150_000, 5 << 20, 3 << 30)] == [
        *("0 bytes", "999 bytes", "1.0 KiB", "146 KiB", "5.0 MiB", "3.0 GiB")
    ]
