import math

from p2psync.protocol.words import WORDS


def test_three_words_carry_31_bits() -> None:
    assert len(WORDS) == len(set(WORDS)) == 1296
    assert math.log2(len(WORDS) ** 3) > 31


def test_words_are_short_and_lowercase_ascii() -> None:
    for word in WORDS:
        assert 3 <= len(word) <= 7
        assert word.isascii()
        assert word.isalpha()
        assert word.islower()


def test_words_are_sorted_so_that_a_change_is_easy_to_review() -> None:
    assert list(WORDS) == sorted(WORDS)


def test_no_word_begins_another() -> None:
    known = set(WORDS)
    for word in WORDS:
        assert not {word[:end] for end in range(3, len(word))} & known


def test_no_two_words_are_one_letter_apart() -> None:
    seen: dict[str, str] = {}
    for word in WORDS:
        # Two words one replaced letter apart share a pattern; one letter more or less as well.
        patterns = {word[:at] + "?" + word[at + 1 :] for at in range(len(word))}
        patterns |= {word[:at] + word[at + 1 :] for at in range(len(word))} - {word}
        for pattern in patterns:
            if "?" in pattern:
                assert seen.setdefault(pattern, word) == word
            else:
                assert pattern not in WORDS
