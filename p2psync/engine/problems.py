"""What keeps paths from being in sync, for `status`: one problem a path and source."""

from collections.abc import Iterable

from p2psync.ports import Problem


class Problems:
    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Problem] = {}

    def set(self, source: str, problem: Problem) -> None:
        self._known[source, problem.path] = problem

    def clear(self, source: str, path: str) -> None:
        self._known.pop((source, path), None)

    def replace_all(self, source: str, problems: Iterable[Problem], *, under: str = "") -> None:
        """`problems` are all that there are now, at and below the directory `under`."""
        for known, path in list(self._known):
            if known == source and (not under or path == under or path.startswith(f"{under}/")):
                del self._known[source, path]
        for problem in problems:
            self.set(source, problem)

    def paths(self, source: str) -> frozenset[str]:
        return frozenset(path for known, path in self._known if known == source)

    def listed(self) -> list[Problem]:
        """Ordered by path; the same path and reason from two sources once."""
        return sorted(set(self._known.values()))


STOPPED = Problem(
    "",
    "The work on this folder stopped in a way it should not.",
    "It is tried again soon; the daemon's log says more, please report it.",
)


def halted(folder: str, reason: str) -> Problem:
    return Problem(
        "",
        reason,
        "Bring the disk or directory back; nothing is deleted anywhere meanwhile. If it is "
        f"gone for good, run `p2psync folder remove '{folder}'`.",
    )


def held_back(folder: str, deletions: int, where: str) -> Problem:
    return Problem(
        "",
        f"{deletions} files were deleted {where}, more than pass without a word.",
        f"If that is meant, run `p2psync approve '{folder}'`; if not, put them back from the trash "
        "or a backup.",
    )
