"""What people get wrong: one sentence, an exit code, no traceback, and nothing has changed."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.device import WITHOUT_PRIVILEGE, Device
from tests.e2e.harness import Lab, assert_sound_logs
from tests.e2e.processes import Result, eventually

USAGE, NOT_RUNNING, NOT_FOUND, REFUSED, TIMED_OUT, CONFIG = 2, 3, 4, 5, 6, 7

_SENTENCE = re.compile(r"p2psync: \S.*[.!?]")


def assert_one_sentence(result: Result, *codes: int) -> None:
    lines = [line for line in result.err.splitlines() if line.strip()]
    assert result.code in codes, str(result)
    assert "Traceback" not in result.said, str(result)
    assert "unforeseen" not in result.said, str(result)
    assert result.out == "", str(result)
    said = [line for line in lines if line.startswith("p2psync: ")]
    assert len(said) == 1, str(result)
    assert _SENTENCE.fullmatch(said[0]), str(result)
    assert lines[-1] == said[0], str(result)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One running device for all the bad input of this file: nothing of it may leave a trace."""
    lab = Lab(tmp_path_factory.mktemp("bad-input"))
    try:
        device = lab.device("ada")
        device.add_folder()
        device.write("file", "content")
        eventually(lambda: device.folder()["files"] == 1, within=15, what="the file is known")
        for name, text in {
            "short.key": "abc",
            "empty.key": "",
            "text.key": "two words here",
        }.items():
            (lab.base / name).write_text(text)
        (lab.base / "elsewhere").mkdir()
        yield lab
        assert_sound_logs(lab.logs())
    finally:
        lab.close()
        shutil.rmtree(lab.base, ignore_errors=True)


def _state(device: Device) -> tuple[Any, ...]:
    status = device.glance()
    files = sorted(str(path) for path in device.root.rglob("*") if ".p2psync" not in path.parts)
    return (
        status["device"],
        status["devices"],
        [(row["name"], row["path"], row["mode"]) for row in status["folders"]],
        status["pairing"],
        (device.home / "config.toml").read_bytes(),
        files,
    )


CODE = "4-acorn-velvet-mango"
BAD: dict[str, tuple[list[str], str, tuple[int, ...]]] = {
    # what: (arguments, standard input, allowed exit codes); {base} {root} {home} are filled in
    "no such verb": (["frobnicate"], "", (USAGE,)),
    "no such option": (["status", "--frobnicate"], "", (USAGE,)),
    "a group without a verb": (["folder"], "", (USAGE,)),
    "a missing argument": (["folder", "add"], "", (USAGE,)),
    "one argument too many": (["approve", "a", "b"], "", (USAGE,)),
    "an empty home": (["--home", "", "status"], "", (USAGE,)),
    "init over a home": (["init"], "", (USAGE,)),
    "no code": (["pair", "join"], "\n", (USAGE,)),
    "a code that is none": (["pair", "join"], "open sesame\n", (USAGE, REFUSED)),
    "a code with control characters": (["pair", "join"], "4-a\x1b[31m-b-c\n", (USAGE,)),
    "an endless code": (["pair", "join"], "4-" + "acorn-" * 300 + "\n", (USAGE,)),
    "an address that is none": (["pair", "join", "--address", "nowhere"], CODE, (USAGE,)),
    "a port out of range": (["pair", "join", "--address", "127.0.0.1:70000"], CODE, (USAGE,)),
    "an address nobody answers at": (
        ["pair", "join", "--address", "127.0.0.1:1"],
        CODE,
        (1, NOT_FOUND, REFUSED, TIMED_OUT),
    ),
    "a key file that is missing": (["pair", "join", "--key-file", "{base}/none"], "", (NOT_FOUND,)),
    "a key that is too short": (["pair", "join", "--key-file", "{base}/short.key"], "", (USAGE,)),
    "a key file that is empty": (["pair", "new", "--key-file", "{base}/empty.key"], "", (USAGE,)),
    "a key file of words": (["pair", "new", "--key-file", "{base}/text.key"], "", (USAGE,)),
    "a key file that is a directory": (
        ["pair", "new", "--key-file", "{base}"],
        "",
        (USAGE, CONFIG),
    ),
    "a code and a key": (["pair", "join", CODE, "--key-file", "{base}/short.key"], "", (USAGE,)),
    "renaming nobody": (["device", "rename", "nobody", "somebody"], "", (NOT_FOUND,)),
    "renaming to nothing": (["device", "rename", "ada", ""], "", (USAGE,)),
    "renaming to a path": (["device", "rename", "ada", "a/b"], "", (USAGE,)),
    "renaming to a novel": (["device", "rename", "ada", "x" * 65], "", (USAGE,)),
    "removing nobody": (["device", "remove", "nobody"], "", (NOT_FOUND,)),
    "removing oneself": (["device", "remove", "ada"], "", (USAGE, REFUSED)),
    "a folder that is missing": (["folder", "add", "{base}/none"], "", (USAGE, NOT_FOUND)),
    "a folder that is a file": (["folder", "add", "{base}/short.key"], "", (USAGE,)),
    "a folder of no name": (["folder", "add", "{base}/elsewhere", "--name", ""], "", (USAGE,)),
    "a folder named like a path": (
        ["folder", "add", "{base}/elsewhere", "--name", "a/b"],
        "",
        (USAGE,),
    ),
    "a folder name with control characters": (
        ["folder", "add", "{base}/elsewhere", "--name", "a\x1b[31mb"],
        "",
        (USAGE,),
    ),
    "a mode that is none": (
        ["folder", "add", "{base}/elsewhere", "--mode", "upside-down"],
        "",
        (USAGE,),
    ),
    "a folder with nobody": (
        ["folder", "add", "{base}/elsewhere", "--with", "nobody"],
        "",
        (NOT_FOUND,),
    ),
    "an empty path": (["folder", "add", ""], "", (USAGE,)),
    "a folder that is shared already": (
        ["folder", "add", "{root}", "--name", "again"],
        "",
        (USAGE, REFUSED),
    ),
    "a folder name that is taken": (
        ["folder", "add", "{base}/elsewhere", "--name", "shared"],
        "",
        (USAGE, REFUSED),
    ),
    "a folder in a folder": (["folder", "add", "{root}/inside"], "", (USAGE, REFUSED)),
    "a folder around a folder": (["folder", "add", "{base}"], "", (USAGE, REFUSED)),
    "the home as a folder": (["folder", "add", "{home}"], "", (USAGE, REFUSED)),
    "our own directory as a folder": (["folder", "add", "{root}/.p2psync"], "", (USAGE, REFUSED)),
    "removing no folder": (["folder", "remove", "none"], "", (NOT_FOUND,)),
    "pausing no folder": (["folder", "pause", "none"], "", (NOT_FOUND,)),
    "resuming no folder": (["folder", "resume", "none"], "", (NOT_FOUND,)),
    "rescanning no folder": (["folder", "rescan", "none"], "", (NOT_FOUND,)),
    "waiting for less than no time": (["wait", "--timeout", "-1"], "", (USAGE,)),
    "waiting for no number": (["wait", "--timeout", "nan"], "", (USAGE,)),
    "waiting for a word": (["wait", "--timeout", "soon"], "", (USAGE,)),
    "keeping what is not there": (["conflicts", "keep", "{root}/none"], "", (NOT_FOUND,)),
    "keeping what is no conflict": (["conflicts", "keep", "{root}/file"], "", (NOT_FOUND, USAGE)),
    "comparing what is no conflict": (["conflicts", "diff", "shared/file"], "", (NOT_FOUND, USAGE)),
    "keeping what is outside": (["conflicts", "keep", "/etc/passwd"], "", (NOT_FOUND,)),
    "approving no folder": (["approve", "none"], "", (NOT_FOUND,)),
}


@pytest.mark.parametrize("case", BAD)
def test_it_is_told_in_one_sentence_and_changes_nothing(case: str, shop: Lab) -> None:
    (device,) = shop.devices
    (device.root / "inside").mkdir(exist_ok=True)
    before = _state(device)
    arguments, stdin, codes = BAD[case]
    places = {"base": shop.base, "root": device.root, "home": device.home}
    filled = [_fill(argument, places) for argument in arguments]

    result = device.cli(*filled, stdin=stdin)

    assert_one_sentence(result, *codes)
    assert _state(device) == before


def _fill(argument: str, places: dict[str, Path]) -> str:
    for name, place in places.items():
        argument = argument.replace("{" + name + "}", str(place))
    return argument


NEEDS_DAEMON = [
    ["pair", "new"],
    ["pair", "join", CODE],
    ["device", "list"],
    ["device", "rename", "a", "b"],
    ["device", "remove", "a"],
    ["folder", "add", "."],
    ["folder", "list"],
    ["folder", "remove", "a"],
    ["folder", "pause", "a"],
    ["folder", "resume", "a"],
    ["folder", "rescan", "a"],
    ["status"],
    ["status", "--json"],
    ["wait", "--timeout", "1"],
    ["conflicts", "list"],
    ["conflicts", "diff", "a/b"],
    ["conflicts", "keep", "a/b"],
    ["approve", "a"],
]


def test_every_verb_says_what_to_do_when_no_daemon_runs(lab: Lab) -> None:
    device = lab.prepare("ada")
    before = sorted(device.home.iterdir())
    for arguments in NEEDS_DAEMON:
        result = device.cli(*arguments)
        assert result.code == NOT_RUNNING, str(result)
        assert "p2psync daemon" in result.err, str(result)
        assert "Traceback" not in result.said
    assert sorted(device.home.iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", ""],
        ["--name", "a/b"],
        ["--name", "x" * 65],
        ["--listen", "nowhere"],
        ["--listen", "127.0.0.1:99999"],
        ["--listen", "::1:0"],
    ],
)
def test_init_with_bad_values_makes_nothing(lab: Lab, arguments: list[str]) -> None:
    device = Device("ada", lab.base / "home", lab.base / "root", lab.base / "log")

    assert_one_sentence(device.cli("init", *arguments), USAGE)

    assert not device.home.exists()


def test_a_home_that_is_something_else_is_left_alone(lab: Lab) -> None:
    (lab.base / "file").write_text("mine")
    (lab.base / "full").mkdir()
    (lab.base / "full" / "file").write_text("mine")
    for name in ("file", "full"):
        device = Device("ada", lab.base / name, lab.base / "root", lab.base / "log")
        for verb in ("init", "daemon"):
            assert_one_sentence(device.cli(verb), USAGE, CONFIG)
    assert (lab.base / "file").read_text() == "mine"
    assert os.listdir(lab.base / "full") == ["file"]


CONFIGS: dict[str, bytes] = {
    "no TOML": b"listen = [",
    "no text": b'name = "\xff\xfe"',
    "an unknown key": b'nmae = "ada"',
    "an unknown table": b"[frobnication]\nlevel = 1",
    "a name of the wrong type": b"name = 7",
    "a listen of the wrong type": b'listen = "127.0.0.1:0"',
    "an address that is none": b'listen = ["nowhere"]',
    "no address": b"listen = []",
    "a negative interval": b"scan_interval_s = -1",
    "an unknown level": b'log_level = "loud"',
    "a switch that is a text": b'[discovery]\nmdns = "yes"',
    "a percentage over 100": b"[brakes]\ndelete_percent = 101",
    "a table that is a number": b"trash = 5",
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_bad_config_file_keeps_the_daemon_from_starting(lab: Lab, case: str) -> None:
    device = lab.prepare("ada")
    config = device.home / "config.toml"
    config.write_bytes(CONFIGS[case])
    before = sorted(device.home.iterdir())

    result = device.cli("daemon", timeout=20)

    assert_one_sentence(result, CONFIG)
    assert "config.toml" in result.err
    assert config.read_bytes() == CONFIGS[case]
    assert sorted(device.home.iterdir()) == before


def test_a_port_in_use_is_named(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        device = lab.prepare("ada", listen=f"127.0.0.1:{port}")

        result = device.cli("daemon", timeout=20)

    assert_one_sentence(result, CONFIG)
    assert str(port) in result.err


def test_a_second_daemon_for_one_home_ends_and_the_first_goes_on(lab: Lab) -> None:
    device = lab.device("ada")
    device.add_folder()

    result = device.cli("daemon", timeout=20)

    assert_one_sentence(result, CONFIG)
    assert device.status()["device"]["name"] == "ada"
    device.write("file", "text")
    eventually(lambda: device.folder()["files"] == 1, within=15, what="the first still works")


def test_a_lock_left_by_a_killed_daemon_is_in_nobodys_way(lab: Lab) -> None:
    device = lab.device("ada")
    device.kill()

    device.start()

    assert device.status()["device"]["name"] == "ada"


def _frozen(lab: Lab, directory: Path) -> None:
    done = subprocess.run(["chattr", "+i", directory], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this file system, or not being root, allows no immutable directory")
    lab.finally_(lambda: subprocess.run(["chattr", "-i", directory], check=False))


def test_a_disk_that_cannot_be_written_is_told_where_it_matters(lab: Lab) -> None:
    device = lab.device("ada")
    frozen = lab.base / "frozen"
    frozen.mkdir()
    (frozen / "file").write_text("is there")
    _frozen(lab, frozen)

    added = device.cli("folder", "add", frozen)
    assert_one_sentence(added, 1, USAGE, REFUSED, CONFIG)
    assert str(frozen) in added.err
    assert device.status()["folders"] == []
    newcomer = Device("bob", frozen / "home", lab.base / "root", lab.base / "log")
    assert_one_sentence(newcomer.cli("init"), CONFIG)
    assert os.listdir(frozen) == ["file"]


def _unreadable_file(device: Device) -> Path:
    path = device.write("private", "cannot be read")
    path.chmod(0)
    return path


def _unreadable_directory(device: Device) -> Path:
    path = device.write("closed/file", "cannot be listed").parent
    path.chmod(0)
    return path


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to drop privileges")
@pytest.mark.parametrize("make", [_unreadable_file, _unreadable_directory])
def test_what_cannot_be_read_is_reported_and_holds_up_nothing(
    lab: Lab, make: Callable[[Device], Path]
) -> None:
    ada, bob = lab.prepare("ada", enter=WITHOUT_PRIVILEGE), lab.device("bob")
    ada.start()
    joined = bob.join(ada.new_code(), address=ada.address())
    assert joined.code == 0, str(joined)
    ada.root.mkdir()
    path = make(ada)
    ada.write("open", "can be read")
    for device in (ada, bob):
        device.add_folder()

    eventually(lambda: bob.read("open") == b"can be read", within=15, what="the other arrives")
    row = eventually(
        lambda: (row := ada.folder())["problems"] and row, within=15, what="it is reported"
    )
    assert any(path.name in problem["path"] for problem in row["problems"]), row
    assert row["state"] != "idle", row

    path.chmod(0o755)
    ada.ok("folder", "rescan", "shared")
    eventually(lambda: (bob.root / path.name).exists(), within=20, what="it arrives then")
    eventually(lambda: not ada.problems(), within=15, what="no problem is left")
