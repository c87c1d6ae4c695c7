"""What keeps paths from being in sync, for `status`: one problem a path and source."""

from p2psync.ports import Problem


class Problems:
    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Problem] = {}

    def set(self, source: str, problem: Problem) -> None:
        self._known[source, problem.path] = problem

    def clear(self, source: str, path: str) -> None:
        self._known.pop((source, path), None)

    def replace_all(self, source: str, problems: list[Problem]) -> None:
        for key in [key for key in self._known if key[0] == source]:
            del self._known[key]
        for problem in problems:
            self.set(source, problem)

    def listed(self) -> list[Problem]:
        """Ordered by path; the same path and reason from two sources once."""
        return sorted(set(self._known.values()))
