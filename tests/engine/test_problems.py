from p2psync.engine.problems import Problems
from p2psync.ports import Problem


def problem(path: str, reason: str = "bad") -> Problem:
    return Problem(path, reason, "mend it")


def listed(problems: Problems) -> list[str]:
    return [each.path for each in problems.listed()]


def test_the_same_problem_from_two_sources_is_told_once() -> None:
    problems = Problems()
    problems.set("scan", problem("a"))
    problems.set("pull", problem("a"))
    problems.set("pull", problem("b"))
    assert listed(problems) == ["a", "b"]
    problems.clear("pull", "a")
    problems.clear("pull", "unheard of")
    assert listed(problems) == ["a", "b"]
    problems.clear("scan", "a")
    assert listed(problems) == ["b"]


def test_a_walk_replaces_what_earlier_ones_told_of_the_same_place() -> None:
    problems = Problems()
    for path in ("a", "d", "d/a", "da"):
        problems.set("scan", problem(path))
        problems.set("read", problem(path, "unreadable"))
    problems.replace_all("scan", [problem("d/b")], under="d")
    assert listed(problems) == ["a", "a", "d", "d/a", "d/b", "da", "da"]
    problems.replace_all("scan", [])
    assert listed(problems) == ["a", "d", "d/a", "da"]
    assert problems.paths("read") == {"a", "d", "d/a", "da"}
    assert problems.paths("scan") == set()
