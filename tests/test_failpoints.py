"""The list of failpoints is the whole truth, and they do nothing unless someone asks."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync import failpoints

PACKAGE = Path(failpoints.__file__).parent


@pytest.fixture(autouse=True)
def no_hook_stays() -> Iterator[None]:
    yield
    failpoints.install(None)


def _reached(tree: ast.AST) -> Iterator[str]:
    """The arguments of all calls of `reach`, which are to be plain texts."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("failpoints"), attr="reach")):
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"line {node.lineno}: no plain text"
                assert isinstance(name.value, str)
                yield name.value


def _reached_in_the_code() -> Counter[str]:
    return Counter(
        name
        for path in PACKAGE.rglob("*.py")
        for name in _reached(ast.parse(path.read_text(encoding="utf-8")))
    )


def test_every_name_is_reached_in_the_code_and_every_name_there_is_listed() -> None:
    assert set(_reached_in_the_code()) == set(failpoints.NAMES)


def test_no_name_is_listed_twice() -> None:
    assert len(set(failpoints.NAMES)) == len(failpoints.NAMES)


def test_nobody_calls_it_by_another_way() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert "failpoints import" not in path.read_text(encoding="utf-8"), path


def test_nothing_happens_by_itself() -> None:
    failpoints.reach("commit.after-swap")


def test_a_hook_hears_of_every_name_until_it_is_taken_away() -> None:
    heard: list[str] = []
    failpoints.install(heard.append)
    failpoints.reach("commit.begun")
    failpoints.reach("commit.after-swap")
    failpoints.install(None)
    failpoints.reach("commit.begun")

    assert heard == ["commit.begun", "commit.after-swap"]
