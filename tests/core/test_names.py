import pytest

from p2psync.core.names import name_fault


@pytest.mark.parametrize("name", ["a", "Ana's laptop", "日本語", "👩‍💻", "x" * 64])
def test_ordinary_names_have_no_fault(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "a/b", "a\nb", "a\x7f", "\udcff", "\u2028", "a ", "a\u202eb", "a\u200b"]
)
def test_names_that_could_mislead_have_one(name: str) -> None:
    assert name_fault(name)
