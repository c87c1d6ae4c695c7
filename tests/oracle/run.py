"""One run: stretches of changes and faults, each ended by rest and a verdict."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.oracle.actions import Chooser
from tests.oracle.judge import Violation, judge, with_story
from tests.oracle.ledger import Ledger
from tests.oracle.sampler import Sampler
from tests.oracle.system import System
from tests.oracle.user import User

_SHORTEST, _LONGEST = 8, 40


@dataclass(frozen=True, slots=True)
class Plan:
    operations: int
    seed: int
    partitions: bool = False
    kills: bool = False
    seconds: float = float("inf")
    settle_s: float = 60.0
    stop_early: bool = False
    """End with the first stretch that shows a violation."""
    biggest: int = 1 << 20
    pause_s: float = 0.03
    """Between two changes, at most; mostly much less."""


@dataclass(slots=True)
class Outcome:
    system: str
    version: str
    seed: int
    operations: int = 0
    stretches: int = 0
    kills: int = 0
    partitions: int = 0
    stops: int = 0
    unclear: int = 0
    copies: int = 0
    files_read: int = 0
    seconds: float = 0.0
    violations: list[Violation] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        return Counter(one.rule for one in self.violations)

    @property
    def is_clean(self) -> bool:
        return all(one.is_harmless for one in self.violations)


class Run:
    def __init__(self, system: System, plan: Plan, desks: Path, *, sampler: Sampler | None) -> None:
        self.ledger = Ledger()
        self.outcome = Outcome(system.name, system.version, plan.seed)
        self._system = system
        self._plan = plan
        self._sampler = sampler
        self._chooser = Chooser(plan.seed, system.abilities, biggest=plan.biggest)
        self._random = self._chooser.random
        self._down: set[int] = set()
        self._is_parted = False
        self.steady: frozenset[int] = frozenset()
        """Devices that are neither stopped nor killed; another set may be given at any rest."""
        self._told: set[tuple[str, str, tuple[int, ...]]] = set()
        self._users = []
        for number, root in enumerate(system.roots):
            desk = desks / f"desk-{number}"
            desk.mkdir(parents=True)
            user = User(device_name(number), root, desk, self.ledger, system.is_private)
            self._users.append(user)

    def execute(
        self,
        tell: Callable[[str], None] = lambda line: None,
        at_rest: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """`at_rest` is called after each stretch, when all is judged and nobody changes a thing."""
        began = time.monotonic()
        outcome, plan = self.outcome, self._plan
        self._stretch(self._fill)
        # However short the run is, it has each fault.
        first = [self._parted] * plan.partitions + [self._killed] * plan.kills
        while outcome.operations < plan.operations and time.monotonic() - began < plan.seconds:
            if plan.stop_early and not outcome.is_clean:
                break
            self._stretch(first.pop() if first else self._random.choice(self._kinds()))
            at_rest()
            tell(
                f"{outcome.system}: {outcome.operations} operations, {outcome.kills} kills, "
                f"{outcome.partitions} partitions, {len(outcome.violations)} findings, "
                f"{time.monotonic() - began:.0f} s"
            )
        outcome.seconds = time.monotonic() - began
        outcome.unclear = self.ledger.unclear
        outcome.files_read = self._sampler.files_read if self._sampler else 0
        return outcome

    def _kinds(self) -> list[Callable[[], None]]:
        kinds = [self._quiet, self._quiet, self._busy, self._busy, self._apart]
        kinds += [self._parted, self._parted] if self._plan.partitions else []
        kinds += [self._killed, self._killed] if self._plan.kills else []
        return kinds

    def _stretch(self, changes: Callable[[], None]) -> None:
        self.outcome.stretches += 1
        self.ledger.note("-", f"a stretch begins: {changes.__name__.strip('_')}")
        changes()
        self._heal()
        why = self._system.settle(self._plan.settle_s)
        names = [user.device for user in self._users]
        trees = {user.device: user.tree() for user in self._users}
        found = judge(self.ledger, trees)
        if self._sampler is not None:
            found += self._sampler.verdict(self.ledger)
        if why:
            text = f"not at rest after {self._plan.settle_s:.0f} s: {why}"
            found.append(with_story(Violation("P11", "all", "", text), self.ledger))
        # What could not be settled is the same in every stretch from then on, and told once.
        for one in found:
            if (one.rule, one.path, one.tokens) not in self._told:
                self._told.add((one.rule, one.path, one.tokens))
                self.outcome.violations.append(one)
        if self._sampler is not None:
            self._sampler.forget()
        self.outcome.copies += len(trees[names[0]].keys() - self.ledger.own_paths)
        for user in self._users:
            user.clear_desk()
        self.ledger.rest(trees.values())

    def _change(self, device: int, *, plain: bool = False) -> None:
        self.outcome.operations += self._chooser.act(self._users[device], plain=plain)
        self._system.breathe()

    def _fill(self) -> None:
        self._chooser.begin(self._users[0], contended=False)
        for _ in range(min(40, self._plan.operations // 4)):
            self._change(0, plain=True)

    def _quiet(self) -> None:
        """One user at work, as programs do it, and nobody else."""
        self.ledger.is_quiet = True
        device = self._random.randrange(len(self._users))
        self._chooser.begin(self._users[device], contended=False)
        for _ in range(self._random.randint(1, 8)):
            self._change(device, plain=True)

    def _busy(self) -> None:
        """All at once."""
        self._contend()
        if self._random.random() < 0.3:
            self.outcome.operations += self._chooser.twins(self._some())
        for _ in range(self._length()):
            self._change(self._random.randrange(len(self._users)))
            time.sleep(self._random.random() ** 3 * self._plan.pause_s)

    def _apart(self) -> None:
        """Some are stopped while the users go on, and then start again."""
        self._contend()
        away = self._some(of=self._mortal())
        for user in away:
            self._stop(self._users.index(user))
        self.outcome.operations += self._chooser.twins(away)
        self._go_on()
        for device in sorted(self._down):
            self._start(device)
            self._change(self._random.randrange(len(self._users)))

    def _parted(self) -> None:
        """The network falls apart, perhaps twice, and is whole again."""
        self._contend()
        for _ in range(self._random.randint(1, 2)):
            group = frozenset(self._users.index(user) for user in self._some())
            names = ", ".join(device_name(number) for number in sorted(group))
            self.ledger.note("-", f"{names} and the others no longer reach each other")
            self._system.part(group)
            self._is_parted = True
            self.outcome.partitions += 1
            self._go_on()
            self._heal()
        self._go_on(most=6)

    def _killed(self) -> None:
        """Some are killed in the middle of work, and start again, perhaps at once."""
        self._contend()
        for _ in range(self._random.randint(1, 3)):
            self._go_on(most=12)
            device = self._users.index(self._random.choice(self._mortal()))
            self.ledger.note("-", f"{device_name(device)} is killed")
            self._system.kill(device)
            self._down.add(device)
            self.outcome.kills += 1
            if self._random.random() < 0.7:
                self._go_on(most=6)
            self._start(device)
        self._go_on(most=6)

    def _contend(self) -> None:
        self._chooser.begin(self._random.choice(self._users), contended=True)

    def _length(self) -> int:
        return self._random.randint(_SHORTEST, _LONGEST)

    def _go_on(self, *, most: int = _LONGEST) -> None:
        for _ in range(self._random.randint(1, most)):
            self._change(self._random.randrange(len(self._users)))
            time.sleep(self._random.random() ** 3 * self._plan.pause_s)

    def _some(self, *, of: list[User] | None = None) -> list[User]:
        """Some of the users, neither none nor all."""
        those = self._users if of is None else of
        most = min(len(those), len(self._users) - 1)
        return self._random.sample(those, self._random.randint(1, most))

    def _mortal(self) -> list[User]:
        return [user for at, user in enumerate(self._users) if at not in self.steady]

    def _stop(self, device: int) -> None:
        self.ledger.note("-", f"{device_name(device)} is stopped")
        self._system.stop(device)
        self._down.add(device)
        self.outcome.stops += 1

    def _start(self, device: int) -> None:
        self.ledger.note("-", f"{device_name(device)} is started")
        self._system.start(device)
        self._down.discard(device)

    def _heal(self) -> None:
        if self._is_parted:
            self.ledger.note("-", "all reach each other again")
            self._system.heal()
            self._is_parted = False
        for device in sorted(self._down):
            self._start(device)


def device_name(number: int) -> str:
    return f"dev{number}"
