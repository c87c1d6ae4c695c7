"""An event loop whose time is virtual and whose threads are callbacks: the seed tells all.

Time jumps to the next timer when nothing is ready. Work for threads is carried out at an instant
of chance between its order and its result, as a thread would at the latest; what one executor of a
database is given keeps its order. Ready callbacks keep theirs, as asyncio promises; all else that
may come sooner or later does.

A device that crashes is never resumed: its callbacks are dropped, and none of its `finally` runs.
"""

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

_LONGEST_S = 1e6
_MOST_TURNS = 400_000


class CrashError(BaseException):
    """Raised by what runs for a device that is to crash here and now."""


class EndlessError(Exception):
    """The devices work on and on, for nothing."""


class Life:
    """A device from a start to its end. Tasks and timers inherit it by their context."""

    def __init__(self, name: str, *, on_crash: Callable[[], None]) -> None:
        self.name = name
        self.is_alive = True
        self.on_crash = on_crash
        self.before_work: Callable[[bool], None] = lambda _is_database: None
        """May raise; told whether it is a database's."""
        self.after_work: Callable[[bool], None] = lambda _is_database: None
        self.slowness_s = 0.001
        self.context = contextvars.Context()
        self.context.run(LIFE.set, self)


LIFE: contextvars.ContextVar[Life] = contextvars.ContextVar("LIFE")


class _Task(asyncio.Task[T]):
    """Orders in sets by when it was made, where others do by their place in memory."""

    def __init__(
        self,
        work: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        loop: "SimulatedLoop",
        context: contextvars.Context | None,
    ) -> None:
        self.number = loop.count_task()
        self.life = LIFE.get(None) if context is None else context.get(LIFE)
        super().__init__(work, loop=loop, context=context)

    def __hash__(self) -> int:
        return self.number


class _Selector:
    def __init__(self, loop: "SimulatedLoop") -> None:
        self._loop = loop
        self.turns = 0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("Nothing is ready and nothing will be.")
        self.turns += 1
        if self.turns > _MOST_TURNS:
            raise EndlessError
        self._loop.pass_time(timeout)
        return []

    def close(self) -> None:
        pass


class SimulatedLoop(asyncio.BaseEventLoop):
    def __init__(self, source: random.Random) -> None:
        super().__init__()
        self._selector = _Selector(self)
        self._clock_resolution = 1e-9
        self._source = source
        self._now = 0.0
        self._tasks_made = 0
        self._anyone_dead = False
        self._finished = False
        self._graveyard: list[object] = []
        self._free_at: dict[Executor, float] = {}
        self.timer_jitter_s = 0.0
        self.world = contextvars.Context()
        """Of what happens outside of all devices."""
        self.set_task_factory(self._make_task)

    # --- time --------------------------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def count_anew(self) -> None:
        """From here on it is to end soon."""
        self._selector.turns = 0

    def pass_time(self, seconds: float) -> None:
        if self._now > _LONGEST_S:
            raise RuntimeError("The simulation does not end.")
        self._now += seconds

    def _process_events(self, _events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    # --- callbacks ---------------------------------------------------------------------------

    def _is_dropped(self, context: contextvars.Context | None) -> bool:
        if self._finished:
            return True
        if not self._anyone_dead:
            return False
        life = context.get(LIFE) if context is not None else LIFE.get(None)
        return life is not None and not life.is_alive

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        if (self._anyone_dead or self._finished) and self._is_dropped(context):
            return _dropped(asyncio.Handle(callback, args, self, context))
        return super().call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        if self._is_dropped(context):
            return _dropped(asyncio.TimerHandle(when, callback, args, self, context))
        when += self._source.random() * self.timer_jitter_s
        return super().call_at(when, callback, *args, context=context)

    def at(self, when: float, callback: Callable[..., Any], *args: Any) -> None:
        """To be called then, whatever becomes of who asked for it."""
        if not self._finished:
            super().call_at(when, callback, *args, context=self.world)

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, T] | Generator[Any, None, T],
        context: contextvars.Context | None = None,
    ) -> "_Task[T]":
        return _Task(work, loop=self, context=context)

    def count_task(self) -> int:
        self._tasks_made += 1
        return self._tasks_made

    # --- threads -----------------------------------------------------------------------------

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        life = LIFE.get(None)
        future: asyncio.Future[T] = self.create_future()
        when = self._now + self._pause(life)
        if executor is not None:
            when = max(when, self._free_at.get(executor, 0.0) + 1e-7)
            self._free_at[executor] = when
        self.at(when, self._work, life, executor is not None, future, lambda: func(*args))
        return future

    def _pause(self, life: Life | None) -> float:
        slowness = life.slowness_s if life is not None else 0.001
        chance = self._source.random()
        return slowness * chance * (10.0 if chance > 0.97 else 1.0)

    def _work(
        self,
        life: Life | None,
        is_database: bool,
        future: asyncio.Future[T],
        work: Callable[[], T],
    ) -> None:
        if life is not None and not life.is_alive:
            return
        if future.cancelled() and self._source.random() < 0.5:
            # The thread had not begun with it.
            return
        result: T | None = None
        error: BaseException | None = None
        try:
            if life is not None:
                life.before_work(is_database)
            result = work()
            if life is not None:
                life.after_work(is_database)
        except CrashError:
            assert life is not None
            life.on_crash()
            return
        except BaseException as raised:
            error = raised
        if self._source.random() < 0.7:
            _tell(life, future, result, error)
        else:
            self.at(self._now + self._pause(life), _tell, life, future, result, error)

    # --- ends --------------------------------------------------------------------------------

    def tasks_of(self, life: Life) -> list["_Task[Any]"]:
        found = [
            task
            for task in asyncio.all_tasks(self)
            if isinstance(task, _Task) and task.life is life
        ]
        return sorted(found, key=lambda task: task.number)

    def bury(self, life: Life) -> None:
        """Nothing of it happens any more, no clean-up either."""
        life.is_alive = False
        self._anyone_dead = True
        # Kept, or their coroutines would be closed, which runs what a crash does not run.
        self._graveyard += self.tasks_of(life)
        handles: list[asyncio.Handle] = [
            *self._ready,  # type: ignore[attr-defined]
            *self._scheduled,  # type: ignore[attr-defined]
        ]
        for handle in handles:
            context: contextvars.Context = handle._context  # type: ignore[attr-defined]
            if not handle.cancelled() and context.get(LIFE) is life:
                self._graveyard.append((handle._callback, handle._args))  # type: ignore[attr-defined]
                handle.cancel()

    def finish(self) -> None:
        """To be called when it has stopped: whatever is left of tasks ends unseen."""
        self._finished = True
        self.set_exception_handler(lambda _loop, _details: None)
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._graveyard.clear()
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        self.close()


_Handle = TypeVar("_Handle", bound=asyncio.Handle)


def _dropped(handle: _Handle) -> _Handle:
    handle.cancel()
    return handle


def _tell(
    life: Life | None,
    future: asyncio.Future[T],
    result: T | None,
    error: BaseException | None,
) -> None:
    if future.done() or (life is not None and not life.is_alive):
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)  # type: ignore[arg-type]
