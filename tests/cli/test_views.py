"""What people read of the daemon's answers."""

import shlex

from p2psync.cli.views import (
    change_lines,
    check_lines,
    conflict_lines,
    device_list_lines,
    device_text,
    duration_text,
    folder_list_lines,
    status_lines,
)
from tests.web.fake_control import ANA, folder, peer, status


def test_an_empty_device_says_what_to_do_first() -> None:
    assert status_lines(status()) == [
        "ana (abcdefg), listening on 127.0.0.1:4001",
        "",
        "No folder is shared. Share one with `p2psync folder add PATH`.",
        "",
        "No other device is paired. Run `p2psync pair new` here to pair one.",
    ]


def test_a_device_that_listens_nowhere_says_so() -> None:
    assert status_lines(status(listen=[]))[0].endswith("listening on no address")


def test_folders_and_devices_are_tables() -> None:
    lacking = {"name": "Sync", "need_files": 1, "need_bytes": 2048}
    told = status_lines(
        status(
            folders=[
                folder(path="/s"),
                folder(name="Photos", path="/p", state="syncing", need_files=2, need_bytes=1),
            ],
            devices=[
                peer(folders=[lacking, {"name": "Photos", "need_files": 0, "need_bytes": 0}]),
                peer(name="eve", connected=False, address=None),
                peer(name="joe", connected=False),
                peer(name="kim", address=None),
            ],
        )
    )
    assert told[2:] == [
        "FOLDER  STATE    FILES  SIZE     NEEDED HERE       CONFLICTS  MODE          PATH",
        "Sync    idle     3      2.0 KiB  nothing           -          send-receive  /s",
        "Photos  syncing  3      2.0 KiB  2 files (1 byte)  -          send-receive  /p",
        "",
        "DEVICE  ID       LINK                                   STILL NEEDS",
        "ben     bcdefgh  connected at 192.0.2.7:4000            Sync: 1 file (2.0 KiB)",
        "eve     bcdefgh  not connected                          nothing",
        "joe     bcdefgh  not connected, last at 192.0.2.7:4000  nothing",
        "kim     bcdefgh  connected                              nothing",
    ]


def test_what_waits_for_a_person_stands_below() -> None:
    first = {"path": "", "reason": "The disk is full.", "next_step": "Free some space."}
    second = {"path": "a/b", "reason": "It cannot be read.", "next_step": ""}
    told = status_lines(
        status(
            folders=[folder(conflicts=2, problems=[second, {**first, "next_step": ""}])],
            offered=[{"name": "Photos", "devices": ["ben", "eve"]}],
            pairing={"expires_s": 299.6},
            problems=[first],
        )
    )
    assert told[4] == "There are conflicts; `p2psync conflicts list` shows them."
    assert told[8:] == [
        "ben and eve offer the folder “Photos”. To take part: "
        "`p2psync folder add PATH --name Photos`.",
        "",
        "A pairing window is open for another 5 min.",
        "",
        "3 problems:",
        "  The disk is full.",
        "    → Free some space.",
        "  Sync/a/b: It cannot be read.",
        "  Sync: The disk is full.",
    ]


def test_of_very_many_problems_the_first_are_shown() -> None:
    problems = [{"path": str(n), "reason": "No.", "next_step": ""} for n in range(30)]
    told = status_lines(status(problems=problems))
    assert told[-2:] == ["  19: No.", "  … and 10 more (`p2psync status --json`)."]


def test_times_are_rounded_for_people() -> None:
    assert [duration_text(seconds) for seconds in (0.4, 45, 89, 90, 300)] == [
        "0 s",
        "45 s",
        "89 s",
        "2 min",
        "5 min",
    ]


def test_the_list_of_devices_has_whole_ids_and_this_one_first() -> None:
    told = device_list_lines(status(devices=[peer()]))
    assert told[1].split() == ["ana", ANA["id"], "this", "device"]
    assert told[2].split()[:2] == ["ben", peer()["id"]]


def test_the_list_of_folders_has_those_that_are_offered() -> None:
    offered = [{"name": "Photos", "devices": ["ben"]}]
    told = folder_list_lines(status(offered=offered))
    assert told[0] == "No folder is shared."
    assert told[2].startswith("ben offers the folder “Photos”.")


def test_a_command_to_paste_runs_nothing_that_a_peer_wrote() -> None:
    name = "x'; rm -rf ~; '"
    told = folder_list_lines(status(offered=[{"name": name, "devices": ["ben"]}]))
    command = told[2].partition("`")[2].removesuffix("`.")
    assert shlex.split(command) == ["p2psync", "folder", "add", "PATH", "--name", name]


def test_the_log_of_changes_has_a_line_for_each_thing() -> None:
    lines = change_lines(status(folders=[folder(conflicts=1)], devices=[peer()]))
    assert list(lines.values()) == [
        "ana (abcdefg) is running",
        "Sync: idle, 3 files here, needed here: nothing, 1 conflict, 0 problems",
        "ben (bcdefgh): connected at 192.0.2.7:4000, still needs nothing",
    ]


def test_conflicts_tell_how_to_settle_them() -> None:
    assert conflict_lines([]) == ["No conflicts."]
    conflict = {
        "folder": "Sync",
        "path": "a (ben).txt",
        "original": "a.txt",
        "device": "ben",
        "size": 1024,
        "needless": False,
    }
    assert conflict_lines([conflict]) == [
        "CONFLICT COPY     CONFLICTS WITH  WRITTEN ON  SIZE",
        "Sync/a (ben).txt  Sync/a.txt      ben         1.0 KiB",
        "",
        "Compare with `p2psync conflicts diff PATH`, settle with `p2psync conflicts keep PATH`.",
    ]
    assert conflict_lines([{**conflict, "needless": True}])[3] == (
        "a (ben).txt is the same as the original: delete it."
    )


def test_a_finding_has_its_next_step_only_where_one_is_needed() -> None:
    good = {"name": "a", "ok": True, "detail": "fine", "next_step": "none"}
    assert check_lines(
        [
            good,
            {**good, "ok": False, "next_step": "Mend it."},
            {**good, "ok": False, "next_step": None},
        ]
    ) == ["ok    a: fine", "FAIL  a: fine", "      → Mend it.", "FAIL  a: fine"]


def test_an_id_that_is_cut_short_is_harmless() -> None:
    assert device_text({"id": "\x1b[2Jabcdef", "name": "ben"}) == "ben (\\x1b[2Jabc)"
