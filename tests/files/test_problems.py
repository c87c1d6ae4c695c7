import errno
import os

import pytest

from p2psync.files.problems import kind_of_problem


@pytest.mark.parametrize(
    "number",
    [
        errno.ENOSPC,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENAMETOOLONG,
        errno.EIO,
        errno.EDQUOT,
        errno.EXDEV,
        errno.ESTALE,
    ],
)
def test_every_error_has_a_sentence_and_a_next_step(number: int) -> None:
    problem = kind_of_problem(OSError(number, os.strerror(number)), "a/b")
    assert problem.path == "a/b"
    for sentence in (problem.reason, problem.next_step):
        assert sentence[0].isupper() and sentence.endswith(".")


def test_an_error_without_a_number_is_told_as_it_says() -> None:
    assert "odd" in kind_of_problem(OSError("odd"), "a").reason
