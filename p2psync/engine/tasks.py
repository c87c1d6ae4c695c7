"""Tasks that end as their owner expects: an error is the one that was raised, a commit is whole."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


class _Tasks(asyncio.TaskGroup):
    """A TaskGroup whose tasks can be waited for before it is left."""

    def __init__(self) -> None:
        super().__init__()
        self.running: set[asyncio.Task[Any]] = set()

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        task = super().create_task(coro, name=name, context=context)
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return task


@contextlib.asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """A TaskGroup that raises the first error itself, so that callers can tell one from another.

    A cancellation that comes while an error ends the other tasks is raised, and not that error:
    whoever took it for all that happened would go on, and never end.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelled_before = task.cancelling()
    try:
        async with _Tasks() as tasks:
            yield tasks
            # Not left to the end of the group: it takes back its own cancellation of us, made when
            # a task fails, only if that comes within the block, and no other could be told from it.
            while tasks.running:
                await asyncio.wait(tasks.running)
    except BaseExceptionGroup as group:
        if task.cancelling() > cancelled_before:
            raise asyncio.CancelledError from group
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` to its end; a cancellation meanwhile takes effect after it.

    For what runs in a thread, which nothing stops, and must be followed by a record of it.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            # Looked at, or it would be reported as lost: the cancellation says more.
            task.exception()
        raise
