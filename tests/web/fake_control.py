"""A `Control` that answers from a script and remembers what it was asked."""

from collections.abc import Awaitable, Callable
from typing import Any

from p2psync.web.api import Control

Json = dict[str, Any]
Script = Json | Exception | Callable[..., Awaitable[Json]]

ANA: Json = {"id": "abcdefghijklmn-bbbbbbbbbbbbbb-cccccccccccccc-dddddddddddddd", "name": "ana"}
BEN: Json = {"id": "bcdefghijklmno-bbbbbbbbbbbbbb-cccccccccccccc-dddddddddddddd", "name": "ben"}


def verified(**changes: object) -> Json:
    """What `status` tells of a folder that was never verified."""
    return {
        "running": False,
        "begun": None,
        "finished": None,
        "files": 0,
        "bytes": 0,
        "damaged": 0,
        "findings": [],
        **changes,
    }


def folder(**changes: object) -> Json:
    """A folder at rest, as `status` tells it."""
    return {
        "name": "Sync",
        "path": "/home/ana/Sync",
        "mode": "send-receive",
        "state": "idle",
        "files": 3,
        "bytes": 2048,
        "need_files": 0,
        "need_bytes": 0,
        "conflicts": 0,
        "verify": verified(),
        "problems": [],
        **changes,
    }


def peer(**changes: object) -> Json:
    """A connected device that needs nothing, as `status` tells it."""
    return {**BEN, "connected": True, "address": "192.0.2.7:4000", "folders": [], **changes}


def status(**changes: object) -> Json:
    """A device at rest without folders and peers."""
    return {
        "device": ANA,
        "listen": ["127.0.0.1:4001"],
        "devices": [],
        "folders": [],
        "offered": [],
        "pairing": None,
        "problems": [],
        **changes,
    }


class FakeControl:
    """Set `answers[method]`: a value, an exception to raise, or what to call with the fields."""

    def __init__(self) -> None:
        self.answers: dict[str, Script] = {"status": status()}
        self.calls: list[tuple[str, Json]] = []

    async def _answer(self, method: str, **fields: object) -> Json:
        self.calls.append((method, fields))
        answer = self.answers.get(method, {})
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, dict) else await answer(**fields)

    def changes(self) -> list[tuple[str, Json]]:
        """The calls that ask for a change."""
        reading = {"status", "wait", "conflicts_list", "doctor", "pair_result"}
        return [call for call in self.calls if call[0] not in reading]

    async def status(self) -> Json:
        return await self._answer("status")

    async def wait(self, *, timeout: float | None = None) -> Json:  # noqa: ASYNC109
        return await self._answer("wait", timeout=timeout)

    async def pair_new(self, *, key: str | None = None) -> Json:
        return await self._answer("pair_new", key=key)

    async def pair_result(self, *, timeout: float) -> Json:  # noqa: ASYNC109
        return await self._answer("pair_result", timeout=timeout)

    async def pair_cancel(self) -> Json:
        return await self._answer("pair_cancel")

    async def pair_join(
        self, *, code: str | None = None, key: str | None = None, address: str | None = None
    ) -> Json:
        return await self._answer("pair_join", code=code, key=key, address=address)

    async def device_rename(self, *, device: str, name: str) -> Json:
        return await self._answer("device_rename", device=device, name=name)

    async def device_remove(self, *, device: str, dry_run: bool = False) -> Json:
        return await self._answer("device_remove", device=device, dry_run=dry_run)

    async def folder_add(
        self,
        *,
        path: str,
        name: str | None = None,
        mode: str = "send-receive",
        with_devices: list[str] | None = None,
        dry_run: bool = False,
    ) -> Json:
        return await self._answer(
            "folder_add",
            path=path,
            name=name,
            mode=mode,
            with_devices=with_devices,
            dry_run=dry_run,
        )

    async def folder_remove(self, *, name: str, dry_run: bool = False) -> Json:
        return await self._answer("folder_remove", name=name, dry_run=dry_run)

    async def folder_pause(self, *, name: str) -> Json:
        return await self._answer("folder_pause", name=name)

    async def folder_resume(self, *, name: str) -> Json:
        return await self._answer("folder_resume", name=name)

    async def folder_rescan(self, *, name: str) -> Json:
        return await self._answer("folder_rescan", name=name)

    async def verify(self, *, name: str | None = None, rate: float | None = None) -> Json:
        return await self._answer("verify", name=name, rate=rate)

    async def approve(self, *, name: str) -> Json:
        return await self._answer("approve", name=name)

    async def conflicts_list(self) -> Json:
        return await self._answer("conflicts_list")

    async def conflicts_keep(self, *, path: str) -> Json:
        return await self._answer("conflicts_keep", path=path)

    async def doctor(self) -> Json:
        return await self._answer("doctor")

    async def shutdown(self) -> Json:
        return await self._answer("shutdown")


_: Control = FakeControl()
