"""How things stand, as JSON for the command line and the page."""

import datetime
from collections.abc import Sequence
from typing import Any

from p2psync.config import format_address
from p2psync.core.ids import DeviceID, format_device_id
from p2psync.daemon.folders import Folders
from p2psync.daemon.pairing import Pairing
from p2psync.engine.cluster import Cluster
from p2psync.engine.folder import Folder
from p2psync.engine.membership import Membership
from p2psync.ports import Problem

Json = dict[str, Any]


class StatusReport:
    def __init__(
        self,
        membership: Membership,
        cluster: Cluster,
        folders: Folders,
        pairing: Pairing,
        *,
        discovery_problems: dict[str, str],
    ) -> None:
        self._membership = membership
        self._cluster = cluster
        self._folders = folders
        self._pairing = pairing
        self._discovery_problems = discovery_problems
        self.listen: Sequence[tuple[str, int]] = ()

    async def status(self) -> Json:
        received, sent = self._cluster.traffic
        expires_s = self._pairing.expires_s
        return {
            "device": self.device_row(self._membership.own.device),
            "listen": [format_address(address) for address in self.listen],
            "devices": [await self._peer_row(device) for device in self._membership.members],
            "folders": [await self._folder_row(folder) for folder in self._folders.folders()],
            "offered": [
                {"name": name, "devices": [self._membership.name_of(one) for one in devices]}
                for name, devices in sorted(self._cluster.offered().items())
            ],
            "pairing": None if expires_s is None else {"expires_s": expires_s},
            "problems": [_problem_row(problem) for problem in self._problems()],
            "traffic": {"received": received, "sent": sent},
        }

    async def waiting_for(self) -> list[str]:
        """Why not everything is in sync everywhere, a reason each; empty when it is."""
        names = map(self._membership.name_of, self._cluster.not_met())
        reasons = [f"{name} has joined just now and is being connected" for name in names]
        for folder in self._folders.folders():
            reasons += await folder.waiting_for(self._membership.name_of)
        return reasons

    def device_row(self, device: DeviceID) -> Json:
        return {"id": format_device_id(device), "name": self._membership.name_of(device)}

    async def _peer_row(self, device: DeviceID) -> Json:
        session = self._cluster.sessions.get(device)
        known = self._cluster.address_of(device)
        address = session.link.remote_address if session else known and format_address(known)
        folders = []
        for folder in self._folders.folders():
            if device in await folder.participants():
                need = await folder.need_of(device)
                folders.append(
                    {"name": folder.name, "need_files": need.files, "need_bytes": need.bytes}
                )
        return {
            **self.device_row(device),
            "connected": session is not None,
            "address": address,
            "folders": folders,
        }

    async def _folder_row(self, folder: Folder) -> Json:
        counts = await folder.counts()
        problems = folder.all_problems() + self._folders.problems(folder.name)
        return {
            "name": folder.name,
            "path": folder.spec.path,
            "mode": folder.spec.mode,
            "state": (await folder.state()).value,
            "files": counts.files,
            "bytes": counts.bytes,
            "need_files": counts.need_files,
            "need_bytes": counts.need_bytes,
            "conflicts": counts.conflicts,
            "verify": await verify_row(folder),
            "problems": [_problem_row(problem) for problem in problems],
        }

    def _problems(self) -> list[Problem]:
        found = [
            Problem("", sentence, "") for _, sentence in sorted(self._discovery_problems.items())
        ]
        for device, sentence in self._cluster.refused.items():
            found.append(Problem("", f"{self._membership.name_of(device)}: {sentence}", ""))
        for device, skew_ns in self._cluster.skews_ns.items():
            seconds, side = abs(skew_ns) // 10**9, "ahead of" if skew_ns > 0 else "behind"
            found.append(
                Problem(
                    "",
                    f"The clock of {self._membership.name_of(device)} is {seconds} s {side} ours.",
                    "Set both clocks; nothing is lost, but the newest of two edits may not win.",
                )
            )
        return found


async def verify_row(folder: Folder) -> Json:
    """How far the reading of all files has come, or what the last one came to."""
    scrub = await folder.verifier.progress()
    return {
        "running": folder.verifier.is_running,
        "begun": _moment(scrub.begun_ns),
        "finished": _moment(scrub.finished_ns) if scrub.begun_ns else None,
        "files": scrub.files,
        "bytes": scrub.bytes,
        "damaged": scrub.damaged,
        "findings": [
            {
                "path": finding.path,
                "found": _moment(finding.found_ns),
                "state": "damaged" if finding.is_damaged else "mended",
            }
            for finding in await folder.index.findings()
        ],
    }


def _moment(time_ns: int) -> str | None:
    if not time_ns:
        return None
    moment = datetime.datetime.fromtimestamp(time_ns // 10**9, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _problem_row(problem: Problem) -> Json:
    return {"path": problem.path, "reason": problem.reason, "next_step": problem.next_step}
