import pytest

from p2psync.core.brake import WINDOW_S, PassedDeletions, brake_holds


@pytest.mark.parametrize(
    ("deletions", "files", "holds", "why"),
    [
        (0, 0, False, "nothing is deleted"),
        (10, 10, False, "so few never wait, even if it is all there is"),
        (11, 20, True, "more than the least and more than the share"),
        (11, 100, False, "a small share passes"),
        (51, 100, True, "one over half"),
        (50, 100, False, "half passes"),
    ],
)
def test_the_brake(deletions: int, files: int, *, holds: bool, why: str) -> None:
    assert brake_holds(deletions, files, least=10, percent=50) is holds, why


def test_what_passed_of_late_is_counted_and_what_passed_before_is_not() -> None:
    passed = PassedDeletions()
    passed.add(3, now=100.0)
    passed.add(0, now=101.0)
    passed.add(4, now=130.0)
    assert passed.count(now=130.0) == 7
    assert passed.count(now=100.0 + WINDOW_S) == 4
    assert passed.count(now=130.0 + WINDOW_S) == 0
