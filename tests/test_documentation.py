"""What the documentation says that a program can check: names, numbers, defaults, links, paths."""

import ast
import dataclasses
import functools
import importlib
import inspect
import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec import Struct
from typer.main import get_command

from p2psync import config, errors
from p2psync.cli.app import program
from p2psync.protocol import messages, pairing_wire

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
EDGE_CASES = (ROOT / "docs" / "edge-cases.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
WRITTEN = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
ALL = sorted({*WRITTEN, *ROOT.glob("*.md")})

INTERRUPTED = 130
EVERYWHERE = {"--help", "--home", "--json"}

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(r"`((?:p2psync|tests|scripts|docs)/[a-z_][\w./-]*?)/?(?:::(\w+))?`")
_COMMAND = re.compile(r"(?:`|^ +|^scripts/|`scripts/)p2psync ([a-z]+(?: [a-z]+)?)", re.MULTILINE)


def _rows(text: str, head: str) -> list[list[str]]:
    """The cells of every row of the tables whose first row begins with `head`."""
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
        elif line.startswith(f"| {head} |"):
            inside = True
        elif inside and not line.startswith("|-"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def _verbs(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _verbs(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


VERBS = dict(_verbs(get_command(program())))


def _options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def _settings(values: Any, before: str = "") -> Iterator[tuple[str, object]]:
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            yield from _settings(value, f"{field.name}.")
        else:
            yield before + field.name, value


def _flat(document: dict[str, Any], before: str = "") -> Iterator[tuple[str, object]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{key}.")
        else:
            yield before + key, value


def _in(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- the command line ----------------------------------------------------------------------------


def test_the_readme_lists_every_verb_and_no_other() -> None:
    listed = [cells[0].strip("`") for cells in _rows(README, "command")]

    assert sorted(listed) == sorted(VERBS)


@pytest.mark.parametrize(
    ("verb", "text"), [(cells[0].strip("`"), cells[1]) for cells in _rows(README, "command")]
)
def test_the_options_of_a_verb_in_the_readme_exist(verb: str, text: str) -> None:
    named = set(re.findall(r"`(--[a-z-]+)", text))

    assert named <= _options(VERBS[verb])


def test_every_option_of_a_verb_is_in_the_readme() -> None:
    known = {option for command in VERBS.values() for option in _options(command)}
    long = {option for option in known if option.startswith("--")} - EVERYWHERE

    # Only one mode is taken so far, so that there is nothing to choose.
    assert [option for option in sorted(long - {"--mode"}) if f"`{option}`" not in README] == []


@pytest.mark.parametrize("path", WRITTEN, ids=_in)
def test_every_command_line_names_a_verb(path: Path) -> None:
    for words in [] if path.name == "protocol.md" else _COMMAND.findall(path.read_text()):
        # A word after a whole verb is an argument, and a group may be named by itself.
        is_group = any(verb.startswith(f"{words} ") for verb in VERBS)
        assert words in VERBS or words.split()[0] in VERBS or is_group, f"no verb {words}"


def test_the_readme_lists_every_exit_code_and_no_other() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.P2psyncError)}
    listed = [int(cells[0]) for cells in _rows(README, "exit code")]

    assert listed == sorted(codes | {0, INTERRUPTED})


# --- settings ------------------------------------------------------------------------------------


def test_the_readme_lists_every_setting_and_no_other() -> None:
    listed = [cells[0].strip("`") for cells in _rows(README, "setting")]

    assert sorted(listed) == sorted(key for key, _ in _settings(config.Config()))


def test_the_readme_gives_every_setting_its_default() -> None:
    written = dict(_flat(tomllib.loads(config.format_config(config.Config()))))
    told = {
        cells[0].strip("`"): tomllib.loads(f"value = {cells[1].strip('`')}")["value"]
        for cells in _rows(README, "setting")
        if cells[1].startswith("`")
    }

    assert told == written
    without = {key for key, value in _settings(config.Config()) if value is None}
    assert told.keys().isdisjoint(without)


# --- the protocol --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", get_args(messages.AnyMessage), ids=lambda kind: kind.__name__)
def test_every_message_is_in_the_protocol_with_its_tag_and_fields(kind: type[Struct]) -> None:
    rows = {cells[1].strip("`"): cells for cells in _rows(PROTOCOL, "tag")}

    tag, _, fields, _ = rows[kind.__name__]
    assert int(tag) == kind.__struct_config__.tag
    named = [field for field in re.findall(r"`(\w+)`", fields) if field in kind.__struct_fields__]
    assert named == list(kind.__struct_fields__)


@pytest.mark.parametrize(
    "kind",
    [*get_args(pairing_wire.FromJoiner), *get_args(pairing_wire.FromHost)],
    ids=lambda kind: kind.__name__,
)
def test_every_message_of_pairing_is_in_the_protocol(kind: type[Struct]) -> None:
    rows = {cells[1].strip("`"): cells[2] for cells in _rows(PROTOCOL, "step")}

    fields = rows[str(kind.__struct_config__.tag)]
    assert re.findall(r"\w+", fields.partition(":")[0]) == list(kind.__struct_fields__)
    if kind is pairing_wire.HostRefusal:
        reasons = [reason.strip() for reason in fields.partition(":")[2].split(",")]
        assert reasons == [refusal.value for refusal in pairing_wire.Refusal]


@pytest.mark.parametrize(
    ("name", "value"), [(cells[0].strip("`"), cells[1]) for cells in _rows(PROTOCOL, "limit")]
)
def test_a_limit_in_the_protocol_is_that_of_the_code(name: str, value: str) -> None:
    module, _, constant = name.rpartition(".")

    assert getattr(importlib.import_module(module), constant) == int(value)


# --- links and paths -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ALL, ids=_in)
def test_every_link_inside_the_repository_leads_somewhere(path: Path) -> None:
    links = [link for link in _LINK.findall(path.read_text()) if "://" not in link]
    targets = [path.parent / link.partition("#")[0] for link in links]

    assert [_in(target) for target in targets if not target.exists()] == []


@pytest.mark.parametrize("path", WRITTEN, ids=_in)
def test_every_file_and_test_that_is_named_exists(path: Path) -> None:
    for name, test in _PATH.findall(path.read_text()):
        place = ROOT / name
        assert place.exists(), f"{name} is not there"
        if test:
            assert test in _functions(place), f"{name} has no {test}"


@functools.cache
def _functions(path: Path) -> frozenset[str]:
    """What is defined in a module or its classes, and so would be collected if it is a test."""
    module = ast.parse(path.read_text())
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    nodes = [*module.body, *(node for each in classes for node in each.body)]
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in nodes if isinstance(node, kinds))


def test_every_edge_case_is_numbered_and_has_a_test_that_exists() -> None:
    rows = _rows(EDGE_CASES, "no.")
    numbers = [cells[0] for cells in rows]

    groups = [list(group) for _, group in itertools.groupby(numbers, key=lambda each: each[0])]
    assert [group[0][0] for group in groups] == list("ABCDEFGP")
    for group in groups:
        assert group == [f"{group[0][0]}{at}" for at in range(1, len(group) + 1)]
    for cells in [*rows, *_rows(EDGE_CASES, "fault")]:
        tests = [(name, test) for name, test in _PATH.findall(cells[-1]) if test]
        assert tests, f"{cells[0]} has no test"
        for name, test in tests:
            assert test.startswith("test_")
            assert test in _functions(ROOT / name), f"{cells[0]}: {name} has no {test}"


def test_every_decision_is_numbered_and_titled_so() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))

    for number, path in enumerate(decisions, start=1):
        assert path.name.startswith(f"{number:04d}-")
        assert path.read_text().startswith(f"# {number:04d}. ")


def test_the_guarantees_are_numbered_in_order() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text()
    numbers = [int(number) for number in re.findall(r"^\*\*G(\d+)\. ", text, re.M)]

    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers


def test_the_oldest_python_that_is_named_is_the_one_that_is_required() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in README


def test_the_changelog_has_an_entry_for_this_version() -> None:
    version = importlib.import_module("p2psync").__version__

    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()
