"""An event loop whose time is virtual and whose threads are callbacks: the seed tells all.

Time jumps to the next timer when nothing is ready. Work for threads is carried out at an instant
of chance between its order and its result, as a thread would at the latest; what one executor of a
database is given keeps its order. Ready callbacks keep theirs, as asyncio promises; all else that
may come sooner or later does.

A device that crashes is never resumed: its callbacks are dropped, and none of its `finally` runs.
"""

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

_LONGEST_S = 1e6
_MOST_TURNS = 400_000
_TICK_S = 1e-9
_MANY = 100
"""So many timers that those that were cancelled are worth a look."""


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


class _Call(asyncio.TimerHandle):
    """As its base makes it, but for what that notes for debugging."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        loop: "SimulatedLoop",
        context: contextvars.Context,
    ) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = context
        self._cancelled = self._scheduled = False
        self._repr = self._source_traceback = None


class SimulatedLoop(asyncio.BaseEventLoop):
    def __init__(self, source: random.Random) -> None:
        super().__init__()
        self._ready: deque[_Call] = deque()
        self._scheduled: list[tuple[float, _Call]] = []
        """A heap, whose times are compared without a call."""
        self._timer_cancelled_count = 0
        self._stopping = False
        self._source = source
        self._now = 0.0
        self._turns = 0
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
        self._turns = 0

    def _run_once(self) -> None:
        """All turns until the loop is told to stop. A turn is what asyncio's is, without what waits
        for files and threads: turns are the most of what a schedule costs by itself."""
        scheduled, ready = self._scheduled, self._ready
        while True:
            if self._timer_cancelled_count:
                self._drop_cancelled()
            if not ready and not self._stopping:
                if not scheduled:
                    raise RuntimeError("Nothing is ready and nothing will be.")
                if self._now > _LONGEST_S:
                    raise RuntimeError("The simulation does not end.")
                if (when := scheduled[0][0]) > self._now:
                    self._now += when - self._now
            self._turns += 1
            if self._turns > _MOST_TURNS:
                raise EndlessError
            end = self._now + _TICK_S
            while scheduled and scheduled[0][0] < end:
                _, call = heapq.heappop(scheduled)
                call._scheduled = False
                ready.append(call)
            # What these order is for the next turn.
            for _ in range(len(ready)):
                call = ready.popleft()
                if not call._cancelled:
                    call._run()
            if self._stopping:
                return

    def _drop_cancelled(self) -> None:
        """Of the timers those that are next, or all when they are the most."""
        scheduled = self._scheduled
        if len(scheduled) > _MANY and self._timer_cancelled_count > len(scheduled) / 2:
            for _, call in scheduled:
                call._scheduled = not call._cancelled
            scheduled[:] = [timer for timer in scheduled if timer[1]._scheduled]
            heapq.heapify(scheduled)
            self._timer_cancelled_count = 0
            return
        while scheduled and scheduled[0][1]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)[1]._scheduled = False

    def _write_to_self(self) -> None:
        pass

    # --- callbacks ---------------------------------------------------------------------------

    def _is_dropped(self, context: contextvars.Context) -> bool:
        """Asked when anyone is dead; at the end all are."""
        life = context.get(LIFE)
        return self._finished or (life is not None and not life.is_alive)

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        if context is None:
            context = contextvars.copy_context()
        call = _Call(self._now, callback, args, self, context)
        if self._anyone_dead and self._is_dropped(context):
            call.cancel()
        else:
            self._ready.append(call)
        return call

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        if context is None:
            context = contextvars.copy_context()
        call = _Call(when, callback, args, self, context)
        if self._anyone_dead and self._is_dropped(context):
            call.cancel()
        else:
            call._when += self._source.random() * self.timer_jitter_s
            self._schedule(call)
        return call

    def at(self, when: float, callback: Callable[..., Any], *args: Any) -> None:
        """To be called then, whatever becomes of who asked for it."""
        if not self._finished:
            self._schedule(_Call(when, callback, args, self, self.world))

    def _schedule(self, call: _Call) -> None:
        call._scheduled = True
        heapq.heappush(self._scheduled, (call._when, call))

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
        future: asyncio.Future[T] = asyncio.Future(loop=self)
        when = self._now + self._pause(life)
        if executor is not None:
            when = max(when, self._free_at.get(executor, 0.0) + 1e-7)
            self._free_at[executor] = when
        self.at(when, self._work, life, executor is not None, future, func, args)
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
        func: Callable[..., T],
        args: tuple[Any, ...],
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
            result = func(*args)
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
        for call in (*self._ready, *(call for _, call in self._scheduled)):
            if not call.cancelled() and call._context.get(LIFE) is life:
                self._graveyard.append((call._callback, call._args))
                call.cancel()

    def finish(self) -> None:
        """To be called when it has stopped: whatever is left of tasks ends unseen."""
        self._finished = self._anyone_dead = True
        self.set_exception_handler(lambda _loop, _details: None)
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._graveyard.clear()
        self._ready.clear()
        self._scheduled.clear()
        self.close()


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
