"""What a test has going on beside itself."""

import threading
from typing import Self


class Beside:
    """Inside a `with` block, `_run` runs in a thread of its own; it ends soon once `_stop` is set,
    and what it raised fails the test."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name=type(self).__name__.lower())
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    def _run(self) -> None:
        raise NotImplementedError
