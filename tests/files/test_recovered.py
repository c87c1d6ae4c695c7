import pytest

from p2psync.core.relpath import parse_relpath
from p2psync.files.recovered import name_of_recovered
from tests.files.folder import LATER_NS
from tests.support.steps import rel


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("d/it.txt", "it (recovered 2030-03-17 fbbf98).txt"),
        (".hidden", ".hidden (recovered 2030-03-17 fbbf98)"),
        ("plain", "plain (recovered 2030-03-17 fbbf98)"),
    ],
)
def test_the_name_tells_what_it_is_and_keeps_the_extension(path: str, name: str) -> None:
    assert name_of_recovered(rel(path), "mark", LATER_NS) == name


def test_a_long_name_is_cut_at_a_character() -> None:
    name = name_of_recovered(rel("é" * 127), "mark", LATER_NS)
    parse_relpath(name)
    assert name.startswith("é")
