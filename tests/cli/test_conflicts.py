"""`conflicts list|diff|keep`."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CommandLine
from tests.web.fake_control import FakeControl

Json = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "Sync"
    (path / "docs").mkdir(parents=True)
    (path / "docs" / "a.txt").write_text("one\ntwo\n")
    (path / "docs" / "a (ben).txt").write_text("one\nzwo\n")
    (path / "docs" / "a (eve).txt").write_text("one\ndeux\n")
    return path


def conflict(root: Path, copy: str, device: str) -> Json:
    return {
        "folder": "Sync",
        "path": copy,
        "original": "docs/a.txt",
        "device": device,
        "modified_ns": 0,
        "size": 8,
        "needless": False,
        "absolute": str(root / copy),
        "original_absolute": str(root / "docs/a.txt"),
    }


@pytest.fixture
def two(control: FakeControl, root: Path) -> list[Json]:
    found = [
        conflict(root, "docs/a (ben).txt", "ben"),
        conflict(root, "docs/a (eve).txt", "eve"),
    ]
    control.answers["conflicts_list"] = {"conflicts": found}

    async def keep(path: str) -> Json:
        names = {each[key] for each in found for key in ("absolute", "original_absolute")}
        return {"kept": path, "removed": sorted(names - {path})}

    control.answers["conflicts_keep"] = keep
    return found


def test_conflicts_are_listed(cli: CommandLine, two: list[Json]) -> None:
    assert "Sync/docs/a (ben).txt" in cli("conflicts", "list").out
    assert cli("conflicts", "list", "--json").json() == {"conflicts": two}


def test_a_copy_is_compared_with_the_file(cli: CommandLine, two: list[Json]) -> None:
    for name in ("Sync/docs/a (ben).txt", two[0]["absolute"]):
        assert cli("conflicts", "diff", name).out.splitlines() == [
            "--- Sync/docs/a.txt",
            "+++ Sync/docs/a (ben).txt",
            "@@ -1,2 +1,2 @@",
            " one",
            "-two",
            "+zwo",
        ]


def test_a_file_is_compared_with_each_of_its_copies(
    cli: CommandLine, two: list[Json], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root / "docs")
    found = cli("conflicts", "diff", "a.txt", "--json").json()["differences"]
    assert [each["copy"] for each in found] == [
        "Sync/docs/a (ben).txt",
        "Sync/docs/a (eve).txt",
    ]


def test_a_terminal_gets_nothing_that_could_drive_it(
    cli: CommandLine, two: list[Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(two[0]["absolute"]).write_text("\x1b[2Jevil\n")
    assert "\x1b[2Jevil" in cli("conflicts", "diff", "Sync/docs/a (ben).txt").out
    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda self: True, raising=False)
    told = cli("conflicts", "diff", "Sync/docs/a (ben).txt").out
    assert "+\\x1b[2Jevil" in told
    assert "\x1b" not in told


def test_a_version_is_kept_by_any_of_its_names(
    cli: CommandLine, two: list[Json], control: FakeControl, root: Path
) -> None:
    (root.parent / "link").symlink_to("Sync")
    names: list[str | Path] = [
        "Sync/docs/a (ben).txt",
        root / "docs/a (ben).txt",
        root.parent / "link/docs/a (ben).txt",
        root / "docs/../docs/a (ben).txt",
    ]
    for name in names:
        assert cli("conflicts", "keep", name).code == 0
    copy = two[0]["absolute"]
    assert control.changes() == [("conflicts_keep", {"path": copy})] * len(names)


def test_the_file_itself_is_kept_against_all_its_copies(
    cli: CommandLine, two: list[Json], control: FakeControl
) -> None:
    original = two[0]["original_absolute"]
    planned = cli("conflicts", "keep", "Sync/docs/a.txt", "--dry-run")
    assert control.changes() == []
    done = cli("conflicts", "keep", "Sync/docs/a.txt")
    assert control.changes() == [("conflicts_keep", {"path": original})]
    assert done.out.splitlines() == [
        f"Kept {original}.",
        f"Removed {two[0]['absolute']}.",
        f"Removed {two[1]['absolute']}.",
    ]
    assert planned.out == done.out.replace("Kept", "Would keep").replace("Removed", "Would remove")


def test_a_path_without_a_conflict_is_not_found(cli: CommandLine, two: list[Json]) -> None:
    result = cli("conflicts", "keep", "Sync/docs/b.txt")
    assert result.code == 4
    assert "takes part in no conflict" in result.sentence
