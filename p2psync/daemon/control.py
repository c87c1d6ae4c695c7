"""What the daemon does when it is asked: `web.api.Control`, in terms of its parts."""

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from p2psync.config import parse_address
from p2psync.core.ids import DeviceID, format_device_id
from p2psync.core.names import name_fault
from p2psync.daemon.folders import Folders
from p2psync.daemon.pairing import Pairing
from p2psync.daemon.status import StatusReport
from p2psync.engine.conflicts import ConflictRow, find_conflicts, keep_version
from p2psync.engine.membership import Membership
from p2psync.errors import NotFoundError, RefusedError, UsageError
from p2psync.ports import Clock
from p2psync.storage.device_store import FolderRecord

Json = dict[str, Any]

_LOOK_S = 0.05
_SHORTEST_ID = 4

_log = logging.getLogger(__name__)


class DaemonControl:
    def __init__(
        self,
        membership: Membership,
        folders: Folders,
        pairing: Pairing,
        report: StatusReport,
        clock: Clock,
        *,
        checks: Callable[[], list[Json]],
        end: Callable[[], None],
    ) -> None:
        self._membership = membership
        self._folders = folders
        self._pairing = pairing
        self._report = report
        self._clock = clock
        self._checks = checks
        self._end = end

    async def status(self) -> Json:
        return await self._report.status()

    async def wait(self, *, timeout: float | None = None) -> Json:  # noqa: ASYNC109 - of the API
        # What was written just before may not have been noticed yet.
        for folder in self._folders.folders():
            folder.rescan()
        deadline = self._clock.monotonic() + (math.inf if timeout is None else timeout)
        while reasons := await self._report.waiting_for():
            if self._clock.monotonic() >= deadline:
                return {"done": False, "waiting_for": reasons}
            await asyncio.sleep(_LOOK_S)
        return {"done": True, "waiting_for": []}

    # --- pairing -----------------------------------------------------------------------------

    async def pair_new(self, *, key: str | None = None) -> Json:
        return await self._pairing.open(key)

    async def pair_result(self, *, timeout: float) -> Json:  # noqa: ASYNC109 - of the API
        return await self._pairing.result(timeout)

    async def pair_cancel(self) -> Json:
        await self._pairing.close()
        return {}

    async def pair_join(
        self, *, code: str | None = None, key: str | None = None, address: str | None = None
    ) -> Json:
        where = None if address is None else parse_address(address, lowest_port=1)
        return {"device": await self._pairing.join(code=code, key=key, address=where)}

    # --- devices -----------------------------------------------------------------------------

    async def device_rename(self, *, device: str, name: str) -> Json:
        if fault := name_fault(name):
            raise UsageError(f"“{name}” cannot be the name of a device: {fault}.")
        found = self._device(device)
        await self._membership.rename(found, name, now_ns=self._clock.now_ns())
        return {"device": self._report.device_row(found)}

    async def device_remove(self, *, device: str, dry_run: bool = False) -> Json:
        found = self._device(device)
        row = self._report.device_row(found)
        if found == self._membership.own.device:
            raise UsageError(
                "A device cannot remove itself from the group. Run `p2psync device remove` on "
                "another device of the group."
            )
        if not dry_run:
            await self._membership.remove(found)
            _log.warning("device removed name=%s", row["name"])
        return {"device": row}

    def _device(self, text: str) -> DeviceID:
        """By name, ID, or the first characters of the ID. Raises NotFoundError, UsageError."""
        known = [self._membership.own.device, *self._membership.members]
        start = text.lower().replace("-", "")
        # Both ways: a member may have given another one a name that looks like an ID.
        exact = [one for one in known if format_device_id(one).replace("-", "") == start]
        found = exact or [
            one
            for one in known
            if self._membership.name_of(one) == text
            or (
                len(start) >= _SHORTEST_ID
                and format_device_id(one).replace("-", "").startswith(start)
            )
        ]
        if not found:
            raise NotFoundError(
                f"No device “{text}” is in the group; `p2psync device list` shows those that are."
            )
        if len(found) > 1:
            ids = ", ".join(format_device_id(one)[:7] for one in found)
            raise UsageError(f"“{text}” is the name or ID of more than one device: {ids}.")
        return found[0]

    # --- folders -----------------------------------------------------------------------------

    async def folder_add(
        self,
        *,
        path: str,
        name: str | None = None,
        mode: str = "send-receive",
        with_devices: list[str] | None = None,
        dry_run: bool = False,
    ) -> Json:
        shared_with = None if with_devices is None else [self._device(one) for one in with_devices]
        record = await self._folders.add(
            Path(path), name=name, mode=mode, shared_with=shared_with, dry_run=dry_run
        )
        partners = self._membership.members if shared_with is None else shared_with
        return {
            "name": record.name,
            "path": str(record.path),
            "mode": record.mode,
            "shared_with": [self._membership.name_of(one) for one in partners],
        }

    async def folder_remove(self, *, name: str, dry_run: bool = False) -> Json:
        record = await self._folders.remove(name, dry_run=dry_run)
        return {"name": record.name, "path": str(record.path)}

    async def folder_pause(self, *, name: str) -> Json:
        await self._folders.set_paused(name, paused=True)
        return {}

    async def folder_resume(self, *, name: str) -> Json:
        await self._folders.set_paused(name, paused=False)
        return {}

    async def folder_rescan(self, *, name: str) -> Json:
        self._folders.get(name).rescan()
        return {}

    async def verify(self, *, name: str | None = None, rate: float | None = None) -> Json:
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise UsageError("The rate has to be a number of bytes a second, more than 0.")
        folders = self._folders.folders() if name is None else [self._folders.get(name)]
        paused = {each.name for each in self._folders.records() if each.paused}
        if name is not None and name in paused:
            raise RefusedError(
                f"“{name}” is paused, and nothing is read in it; `p2psync folder resume` first."
            )
        begun = [folder for folder in folders if folder.name not in paused]
        for folder in begun:
            folder.verifier.start(rate)
        return {"folders": [folder.name for folder in begun]}

    async def approve(self, *, name: str) -> Json:
        return {"approved": self._folders.get(name).approve()}

    # --- conflicts ---------------------------------------------------------------------------

    async def conflicts_list(self) -> Json:
        return {
            "conflicts": [
                _conflict_row(self._folders.record_of(folder.name), row)
                for folder in self._folders.folders()
                for row in await find_conflicts(folder.index)
            ]
        }

    async def conflicts_keep(self, *, path: str) -> Json:
        for record in self._folders.records():
            if not path.startswith(f"{record.path}/"):
                continue
            folder = self._folders.get(record.name)
            chosen = path.removeprefix(f"{record.path}/")
            removed = await keep_version(folder, chosen)
            return {"kept": path, "removed": [f"{record.path}/{one}" for one in removed]}
        raise NotFoundError(f"{path} is in no shared folder; `p2psync conflicts list` shows all.")

    # --- the daemon itself -------------------------------------------------------------------

    async def doctor(self) -> Json:
        # How much is under way: at rest always the same, or something is left behind.
        tasks = len(asyncio.all_tasks())
        checks = await asyncio.to_thread(self._checks)
        # Those of the loop's pool, which starts one more, up to a bound, when all are busy.
        pooled = sum(thread.name.startswith("asyncio_") for thread in threading.enumerate())
        return {"checks": checks, "tasks": tasks, "pooled_threads": pooled}

    async def shutdown(self) -> Json:
        self._end()
        return {}


def _conflict_row(record: FolderRecord, row: ConflictRow) -> Json:
    return {
        "folder": record.name,
        "path": row.path,
        "original": row.original,
        "device": row.author,
        "size": row.size,
        "needless": row.is_needless,
        "absolute": f"{record.path}/{row.path}",
        "original_absolute": f"{record.path}/{row.original}",
    }
