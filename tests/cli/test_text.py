import pytest

from p2psync.cli.text import need_text, shown, size_text, table


@pytest.mark.parametrize(
    ("text", "harmless"),
    [
        ("plain", "plain"),
        ("Größe 日本 🎉", "Größe 日本 🎉"),
        ("a\tb\nc\rd", "a\\tb\\nc\\rd"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b31m", "\\x9b31m"),
        ("\x7f\x00", "\\x7f\\x00"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\u2028", "\\u2028"),
        ("\U000e0041", "\\U000e0041"),
        ("caf\udce9", "caf\\xe9"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_could_mislead_is_escaped_and_the_rest_stays(text: str, harmless: str) -> None:
    assert shown(text) == harmless


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2**80, "1048576.0 EiB"),
    ],
)
def test_sizes_have_the_largest_unit_that_fits(count: int, text: str) -> None:
    assert size_text(count) == text


def test_needing_a_deletion_is_not_nothing() -> None:
    assert need_text(0, 0) == "nothing"
    assert need_text(1, 0) == "1 file (0 bytes)"


def test_columns_line_up_with_wide_and_combining_characters() -> None:
    lines = table(("A", "B"), [("日本", "1"), ("e\u0301", "2"), ("abcd", "3")])

    assert lines == ["A     B", "日本  1", "e\u0301     2", "abcd  3"]
