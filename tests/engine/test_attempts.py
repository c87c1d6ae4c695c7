import pytest

from p2psync.core.relpath import RelPath
from p2psync.engine.attempts import LATER_S, NEVER_S, SOON_S, Attempts
from p2psync.engine.problems import Problems
from p2psync.ports import Problem, Wanted
from tests.support.manual_clock import ManualClock

PROBLEM = Problem("", "It is full.", "Make room.")


def wanted(path: str, stamp: int = 1) -> Wanted:
    return Wanted(RelPath(path), None, (), stamp=stamp)


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.problems = Problems()
        self.attempts = Attempts(self.clock, self.problems)


@pytest.fixture
def world() -> World:
    return World()


def test_a_path_is_skipped_until_it_is_due(world: World) -> None:
    world.attempts.put_off(wanted("a", 7), SOON_S)
    assert world.attempts.skipped() == {"a": 7}
    world.clock.advance(SOON_S)
    assert world.attempts.skipped() == {}
    assert world.attempts.due() == ["a"]


def test_pauses_grow_up_to_a_limit_and_begin_anew_with_other_offers(world: World) -> None:
    pauses = []
    for _ in range(14):
        world.attempts.put_off(wanted("a"), SOON_S)
        now = world.clock.monotonic()
        pauses.append(world.attempts.next_due(after=now))
        world.clock.advance(pauses[-1])
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(SOON_S)
    assert pauses[-1] == pytest.approx(300)
    world.attempts.put_off(wanted("a", 2), SOON_S)
    assert world.attempts.next_due(after=world.clock.monotonic()) == pytest.approx(SOON_S)


def test_what_was_due_before_a_sweep_is_no_reason_for_another(world: World) -> None:
    world.attempts.put_off(wanted("a"), SOON_S)
    world.clock.advance(5)
    assert world.attempts.next_due(after=world.clock.monotonic()) == NEVER_S
    assert world.attempts.next_due(after=world.clock.monotonic() - 6) == 0


def test_a_new_peer_makes_due_what_no_problem_stood_against(world: World) -> None:
    world.attempts.put_off(wanted("nobody's"), NEVER_S)
    world.attempts.put_off(wanted("full"), LATER_S, PROBLEM)
    world.attempts.forgive()
    assert world.attempts.due() == ["nobody's"]


def test_problems_are_told_until_they_are_over(world: World) -> None:
    for path in ("done", "other", "unwanted", "stays"):
        world.attempts.put_off(wanted(path), LATER_S, PROBLEM)
    world.attempts.succeeded(RelPath("done"))
    world.attempts.put_off(wanted("other"), LATER_S)
    paths = [RelPath("unwanted"), RelPath("stays")]
    world.attempts.keep_only([RelPath("stays")], of=paths)
    assert [problem.path for problem in world.problems.listed()] == ["stays"]
    assert set(world.attempts.skipped()) == {"other", "stays"}


def test_the_count_is_of_the_same_offers(world: World) -> None:
    assert world.attempts.count(wanted("a")) == 0
    world.attempts.put_off(wanted("a"), SOON_S)
    world.attempts.put_off(wanted("a"), SOON_S)
    assert world.attempts.count(wanted("a")) == 2
    assert world.attempts.count(wanted("a", 2)) == 0
