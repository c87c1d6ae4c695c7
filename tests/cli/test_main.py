"""What holds for every verb: exit codes, sentences for failures, no traceback, nothing changed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2psync.cli.app import _VERBS
from p2psync.cli.main import daemon_alone
from p2psync.errors import DamagedError, NotFoundError, RefusedError
from tests.cli.conftest import CommandLine
from tests.web.fake_control import FakeControl, folder, status

PROGRAM = [sys.executable, "-c", "from p2psync.cli.main import run; run()"]

NEED_DAEMON = [
    "pair new",
    "pair join 4-acorn-velvet-mango",
    "device list",
    "device rename ana eve",
    "device remove ana",
    "folder add .",
    "folder list",
    "folder remove Sync",
    "folder pause Sync",
    "folder resume Sync",
    "folder rescan Sync",
    "status",
    "status --watch",
    "status --watch --json",
    "wait",
    "conflicts list",
    "conflicts diff a",
    "conflicts keep a",
    "approve Sync",
    "verify",
    "verify Sync --no-wait",
]

WRONG = [
    ["bogus"],
    ["--bogus"],
    ["--home", "", "status"],
    ["status", "--home", ""],
    ["status", "--home"],
    ["status", "surplus"],
    ["folder"],
    ["folder", "bogus"],
    ["folder", "add"],
    ["folder", "add", ""],
    ["folder", "add", ".", "--name", ""],
    ["folder", "add", ".", "--name", "a/b"],
    ["folder", "add", ".", "--name", "a\x1b[2Jb"],
    ["folder", "add", ".", "--name", "x" * 65],
    ["folder", "add", ".", "--mode", "both"],
    ["folder", "add", "~nobody-of-this-name/x"],
    ["folder", "remove"],
    ["folder", "pause"],
    ["device", "rename", "ana"],
    ["device", "rename", "ana", ""],
    ["device", "rename", "ana", "a/b"],
    ["device", "remove"],
    ["pair", "join", ""],
    ["pair", "join"],
    ["pair", "join", "x" * 1000],
    ["pair", "join", "a\x1bb"],
    ["pair", "join", "code", "--address", "nowhere"],
    ["pair", "join", "code", "--address", "1.2.3.4:0"],
    ["pair", "join", "code", "--key-file", "key"],
    ["wait", "--timeout", "soon"],
    ["wait", "--timeout", "-1"],
    ["wait", "--timeout", "nan"],
    ["wait", "--timeout", "inf"],
    ["conflicts", "keep"],
    ["conflicts", "keep", ""],
    ["conflicts", "diff", "/"],
    ["approve"],
    ["up", ""],
    ["init", "--name", ""],
    ["init", "--name", "a/b"],
    ["init", "--listen", "nowhere"],
    ["init", "--listen", "1.2.3.4:99999"],
]


@pytest.mark.parametrize("line", NEED_DAEMON)
def test_without_a_daemon_each_verb_says_how_to_start_it(line: str, cli: CommandLine) -> None:
    result = cli(*line.split())

    assert result.code == 3
    assert result.err.endswith(
        f"p2psync: The daemon is not running for {cli.home}. "
        "Start it with `p2psync daemon` or `p2psync up`.\n"
    )
    assert result.out == ""
    assert not cli.home.exists()


@pytest.mark.parametrize("arguments", WRONG, ids=repr)
def test_wrong_usage_is_one_sentence_and_changes_nothing(
    arguments: list[str], cli: CommandLine, control: FakeControl, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))

    result = cli(*arguments)

    assert result.code == 2
    assert result.sentence.startswith("p2psync: ")
    assert result.sentence.endswith(".")
    assert result.sentence.isprintable()
    assert result.out == ""
    assert control.changes() == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFoundError("There is no folder “Sync”."), 4),
        (RefusedError("No."), 5),
        (DamagedError("The index is damaged."), 8),
    ],
)
def test_what_the_daemon_refuses_is_told_with_its_exit_code(
    error: Exception, code: int, cli: CommandLine, control: FakeControl
) -> None:
    control.answers["folder_pause"] = error

    result = cli("folder", "pause", "Sync")

    assert (result.code, result.sentence, result.out) == (code, f"p2psync: {error}", "")


def test_the_home_can_be_named_before_and_after_the_verb(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("P2PSYNC_HOME")

    assert "for /one." in cli("--home", "/one", "status").err
    assert "for /two." in cli("status", "--home", "/two").err
    assert "for /two." in cli("--home=/one", "folder", "list", "--home=/two").err
    assert f"for {tmp_path}/three." in cli("status", "--home", "three").err
    assert f"for {tmp_path}/user/three." in cli("status", "--home", "~/three").err
    assert f"for {tmp_path}/user/.local/state/p2psync." in cli("status").err
    monkeypatch.setenv("P2PSYNC_HOME", "/four")
    assert "for /four." in cli("status").err
    assert "for /one." in cli("--home", "/one", "status").err
    monkeypatch.setenv("P2PSYNC_HOME", "")
    assert f"for {tmp_path}/user/.local/state/p2psync." in cli("status").err


def test_without_arguments_the_help_is_shown_with_the_exit_codes(cli: CommandLine) -> None:
    result = cli()

    assert result.code == 0
    for text in ("up", "pair", "conflicts", "doctor", "Exit codes:", "8 damaged data"):
        assert text in result.out


def test_a_failure_in_the_program_leaves_a_report_and_no_traceback(
    cli: CommandLine, control: FakeControl
) -> None:
    control.answers["status"] = {"nothing": "of use"}

    result = cli("status")

    report = cli.home / "crash.log"
    assert result.code == 1
    assert result.sentence.endswith(f"please report it with {report}.")
    assert "KeyError" in report.read_text()
    assert report.stat().st_mode & 0o777 == 0o600
    assert cli("status", "--home", str(cli.home)).code == 1


def test_a_report_never_goes_through_a_link(
    cli: CommandLine, control: FakeControl, tmp_path: Path
) -> None:
    control.answers["status"] = {}
    (tmp_path / "precious").write_text("kept")
    (cli.home / "crash.log").symlink_to(tmp_path / "precious")

    assert cli("status").code == 1
    assert (tmp_path / "precious").read_text() == "kept"


def test_names_from_peers_cannot_drive_the_terminal(cli: CommandLine, control: FakeControl) -> None:
    evil = "x\x1b[2J\r\n\u202e\u2066y\udcff"
    problem = {"path": evil, "reason": evil, "next_step": evil}
    control.answers["status"] = status(
        device={"id": evil, "name": evil},
        listen=[evil],
        devices=[
            {
                "id": evil,
                "name": evil,
                "connected": True,
                "address": evil,
                "folders": [{"name": evil, "need_files": 1, "need_bytes": 1}],
            }
        ],
        folders=[folder(name=evil, path=evil, mode=evil, state=evil, problems=[problem])],
        offered=[{"name": evil, "devices": [evil]}],
        problems=[problem],
    )
    control.answers["doctor"] = {
        "checks": [{"name": evil, "ok": False, "detail": evil, "next_step": evil}]
    }
    control.answers["conflicts_list"] = {
        "conflicts": [
            {
                "folder": evil,
                "path": evil,
                "original": evil,
                "device": evil,
                "modified_ns": 0,
                "size": 1,
                "needless": True,
                "absolute": "/a",
                "original_absolute": "/b",
            }
        ]
    }
    control.answers["device_remove"] = {"device": {"id": evil, "name": evil}, "done": True}
    control.answers["folder_pause"] = RefusedError(evil)

    for line in [
        "status",
        "status --json",
        "device list",
        "folder list",
        "conflicts list",
        "doctor",
        "device remove ben",
        "folder pause Sync",
    ]:
        result = cli(*line.split())
        said = result.out + result.err
        assert "x" in said
        assert all(part.isprintable() for part in said.split("\n")), line


def test_a_reader_that_leaves_early_gets_no_complaint(cli: CommandLine, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*PROGRAM, "--help"],
            stdout=writing,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
            timeout=20,
        )
    finally:
        os.close(writing)

    assert done.stderr == b""
    assert done.returncode == 1


ONLY_FOR_THE_DAEMON = {
    "asyncio",
    "blake3",
    "cryptography",
    "h11",
    "msgspec",
    "rich",
    "spake2",
    "sqlite3",
    "tomllib",
    "zeroconf",
}
OF_OTHER_VERBS = {f"p2psync.cli.{name}" for name in ("conflicts", "doctor", "folder", "pair")}


@pytest.mark.parametrize("line", ["status", "--home=x status", "--home x status --json"])
def test_a_command_starts_without_what_only_the_daemon_or_another_verb_needs(
    line: str, tmp_path: Path
) -> None:
    unneeded = ONLY_FOR_THE_DAEMON | OF_OTHER_VERBS
    script = (
        f"import sys; from p2psync.cli.main import main; code = main({line.split()!r});"
        f"print(code, sorted(set({sorted(unneeded)!r}) & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        check=True,
        text=True,
        timeout=20,
    )

    assert done.stdout == "3 []\n"


@pytest.mark.parametrize("line", ["--help", "bogus", "stat", "-x status", "--home", "--version"])
def test_where_no_verb_is_told_all_are_known(line: str, cli: CommandLine) -> None:
    result = cli(*line.split())

    if line == "--help":
        shown = [each.split()[0] for each in result.out.splitlines() if each.startswith("  ")]
        assert set(shown) >= set(_VERBS)
    elif line == "stat":
        assert "status" in result.sentence
    elif line != "--version":
        assert result.code == 2


@pytest.mark.parametrize(
    ("words", "is_plain"),
    [
        ("daemon", True),
        ("daemon -v", True),
        ("daemon --verbose --home two", True),
        ("--home one daemon", True),
        ("--home one daemon --home two -v", True),
        ("--home one --home two daemon", True),
        ("--home=one daemon", False),
        ("daemon --home=~/two", False),
        ("daemon --no-such-option", False),
        ("daemon daemon", False),
        ("-v daemon", False),
        ("daemon --home", False),
        ("--home daemon", False),
        ("--home -v daemon", False),
        ("daemon --help", False),
        ("status", False),
        ("", False),
    ],
)
def test_the_daemon_starts_without_the_parser_as_it_would_with_it(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, words: str, *, is_plain: bool
) -> None:
    arguments = words.split()
    assert (daemon_alone(arguments) is not None) == is_plain
    started: list[tuple[Path, bool]] = []

    def run_daemon(home: Path, *, verbose: bool) -> None:
        started.append((home, verbose))

    monkeypatch.setattr("p2psync.cli.foreground.run_daemon", run_daemon)
    for at_home in (str(cli.home), ""):
        monkeypatch.setenv("P2PSYNC_HOME", at_home)
        result = cli(*arguments)
        with monkeypatch.context() as patch:
            patch.setattr("p2psync.cli.main.daemon_alone", lambda _: None)
            assert cli(*arguments) == result
    assert started[::2] == started[1::2]
    assert bool(started) or not is_plain


def test_the_parser_takes_none_of_the_daemons_memory(tmp_path: Path) -> None:
    script = (
        "import sys; from p2psync.cli import foreground; from p2psync.cli.main import main;"
        "foreground.run_daemon_with = lambda *_, **__: print("
        "sorted({'typer', 'pydantic', 'rich'} & set(sys.modules)));"
        "main(['--home', sys.argv[1], 'daemon'])"
    )
    started = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "new"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        text=True,
        timeout=20,
    )
    assert started.stdout == "[]\n"
