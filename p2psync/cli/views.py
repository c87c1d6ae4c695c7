"""The answers of the daemon as lines for people; plain text, every foreign text made harmless."""

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from p2psync.cli.text import count_text, need_text, shown, size_text, table

Json = dict[str, Any]

_SHORT_ID = 7
_MAX_PROBLEMS = 20


def short_id(device: Json) -> str:
    return shown(device["id"][:_SHORT_ID])


def device_text(device: Json) -> str:
    """`phone (abcdefg)`."""
    return f"{shown(device['name'])} ({short_id(device)})"


def status_lines(status: Json) -> list[str]:
    """Everything `status` knows: this device, folders, devices, what waits for the user."""
    return _joined([[head_line(status)], folder_lines(status["folders"]), lines_after(status)])


def head_line(status: Json) -> str:
    """Who this device is and where it listens."""
    listen = ", ".join(status["listen"]) or "no address"
    return f"{device_text(status['device'])}, listening on {shown(listen)}"


def lines_after(status: Json) -> list[str]:
    """What stands below the folders: devices, and what waits for the user."""
    return _joined(
        [
            _device_lines(status["devices"]),
            _offered_lines(status["offered"]),
            _pairing_lines(status["pairing"]),
            _problem_lines(_all_problems(status)),
        ]
    )


def _joined(blocks: Iterable[Sequence[str]]) -> list[str]:
    lines: list[str] = []
    for block in blocks:
        if block:
            lines += ["", *block] if lines else block
    return lines


def folder_table(folders: Sequence[Json]) -> list[str]:
    rows = [
        [
            shown(folder["name"]),
            shown(folder["state"]),
            str(folder["files"]),
            size_text(folder["bytes"]),
            need_text(folder["need_files"], folder["need_bytes"]),
            str(folder["conflicts"] or "-"),
            shown(folder["mode"]),
            shown(folder["path"]),
        ]
        for folder in folders
    ]
    return table(
        ("FOLDER", "STATE", "FILES", "SIZE", "NEEDED HERE", "CONFLICTS", "MODE", "PATH"), rows
    )


def folder_lines(folders: Sequence[Json]) -> list[str]:
    if not folders:
        return ["No folder is shared. Share one with `p2psync folder add PATH`."]
    lines = folder_table(folders)
    if any(folder["conflicts"] for folder in folders):
        lines.append("There are conflicts; `p2psync conflicts list` shows them.")
    return lines + [verify_text(folder) for folder in folders if folder["verify"]["running"]]


def verify_text(folder: Json) -> str:
    """How far the reading of a folder's files is, or what it came to."""
    verify = folder["verify"]
    read = f"{count_text(verify['files'], 'file')} ({size_text(verify['bytes'])})"
    if verify["running"]:
        done = f"{read} of {folder['files']} ({size_text(folder['bytes'])})"
        return shown(f"Verifying “{folder['name']}”: {done} read, {verify['damaged']} damaged.")
    if not verify["begun"]:
        return shown(f"“{folder['name']}” was never verified.")
    when = verify["finished"] or verify["begun"]
    return shown(f"Verified “{folder['name']}” on {when}: {read}, {verify['damaged']} damaged.")


def finding_lines(folder: Json) -> list[str]:
    """What was found damaged, then or earlier, and whether it still is."""
    lines = []
    for finding in folder["verify"]["findings"][:_MAX_PROBLEMS]:
        became = "is damaged" if finding["state"] == "damaged" else "was damaged, and is no more"
        lines.append(shown(f"  {finding['path']}: {became} (found {finding['found']})"))
    left = len(folder["verify"]["findings"]) - _MAX_PROBLEMS
    if left > 0:
        lines.append(f"  … and {left} more (`p2psync verify --json`).")
    if any(finding["state"] == "mended" for finding in folder["verify"]["findings"]):
        lines.append(shown(f"  What was replaced is kept in “{folder['path']}/.p2psync/damaged”."))
    return lines


def _device_lines(devices: Sequence[Json]) -> list[str]:
    if not devices:
        return ["No other device is paired. Run `p2psync pair new` here to pair one."]
    rows = [
        [shown(device["name"]), short_id(device), _link_text(device), _lacks_text(device)]
        for device in devices
    ]
    return table(("DEVICE", "ID", "LINK", "STILL NEEDS"), rows)


def _link_text(device: Json) -> str:
    address = device["address"]
    if not device["connected"]:
        return f"not connected, last at {shown(address)}" if address else "not connected"
    return f"connected at {shown(address)}" if address else "connected"


def _lacks_text(device: Json) -> str:
    lacking = [
        f"{shown(folder['name'])}: {need_text(folder['need_files'], folder['need_bytes'])}"
        for folder in device["folders"]
        if folder["need_files"] or folder["need_bytes"]
    ]
    return "; ".join(lacking) or "nothing"


def device_list_lines(status: Json) -> list[str]:
    """This device and its peers with their full IDs."""
    own = [shown(status["device"]["name"]), shown(status["device"]["id"]), "this device"]
    rows = [
        [shown(device["name"]), shown(device["id"]), _link_text(device)]
        for device in status["devices"]
    ]
    return table(("DEVICE", "ID", "LINK"), [own, *rows])


def folder_list_lines(status: Json) -> list[str]:
    folders = folder_table(status["folders"]) if status["folders"] else ["No folder is shared."]
    return _joined([folders, _offered_lines(status["offered"])])


def _offered_lines(offered: Sequence[Json]) -> list[str]:
    lines = []
    for offer in offered:
        devices, name = offer["devices"], offer["name"]
        verb = "offers" if len(devices) == 1 else "offer"
        # A peer chose the name, and people paste commands.
        command = f"p2psync folder add PATH --name {shlex.quote(name)}"
        lines.append(
            shown(f"{' and '.join(devices)} {verb} the folder “{name}”. To take part: `{command}`.")
        )
    return lines


def _pairing_lines(pairing: Json | None) -> list[str]:
    if pairing is None:
        return []
    return [f"A pairing window is open for another {duration_text(pairing['expires_s'])}."]


def duration_text(seconds: float) -> str:
    """Rounded for people: `45 s`, `5 min`."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _all_problems(status: Json) -> list[tuple[str, Json]]:
    found = [("", problem) for problem in status["problems"]]
    for folder in status["folders"]:
        found += [(folder["name"], problem) for problem in folder["problems"]]
    return found


def _problem_lines(problems: Sequence[tuple[str, Json]]) -> list[str]:
    if not problems:
        return []
    lines = [count_text(len(problems), "problem") + ":"]
    for folder, problem in problems[:_MAX_PROBLEMS]:
        place = "/".join(part for part in (folder, problem["path"]) if part)
        sentence = f"{place}: {problem['reason']}" if place else str(problem["reason"])
        lines.append(shown(f"  {sentence}"))
        if problem["next_step"]:
            lines.append(shown(f"    → {problem['next_step']}"))
    if len(problems) > _MAX_PROBLEMS:
        lines.append(f"  … and {len(problems) - _MAX_PROBLEMS} more (`p2psync status --json`).")
    return lines


def change_lines(status: Json) -> dict[str, str]:
    """One line for each folder and device, by what it is about: for a log of changes."""
    lines = {"": f"{device_text(status['device'])} is running"}
    for folder in status["folders"]:
        need = need_text(folder["need_files"], folder["need_bytes"])
        lines[f"folder {folder['name']}"] = shown(
            f"{folder['name']}: {folder['state']}, {count_text(folder['files'], 'file')} here, "
            f"needed here: {need}, {count_text(folder['conflicts'], 'conflict')}, "
            f"{count_text(len(folder['problems']), 'problem')}"
        )
    for device in status["devices"]:
        lines[f"device {device['id']}"] = (
            f"{device_text(device)}: {_link_text(device)}, still needs {_lacks_text(device)}"
        )
    return lines


def conflict_lines(conflicts: Sequence[Json]) -> list[str]:
    """Each conflict copy with what it competes with, and how to settle it."""
    if not conflicts:
        return ["No conflicts."]
    rows = [
        [
            shown(f"{one['folder']}/{one['path']}"),
            shown(f"{one['folder']}/{one['original']}"),
            shown(one["device"]),
            size_text(one["size"]),
        ]
        for one in conflicts
    ]
    needless = [one for one in conflicts if one["needless"]]
    return [
        *table(("CONFLICT COPY", "CONFLICTS WITH", "WRITTEN ON", "SIZE"), rows),
        "",
        *(f"{shown(one['path'])} is the same as the original: delete it." for one in needless),
        "Compare with `p2psync conflicts diff PATH`, settle with `p2psync conflicts keep PATH`.",
    ]


def check_lines(checks: Sequence[Json]) -> list[str]:
    """The findings of the doctor, failures with their next step."""
    lines = []
    for check in checks:
        mark = "ok  " if check["ok"] else "FAIL"
        lines.append(shown(f"{mark}  {check['name']}: {check['detail']}"))
        if not check["ok"] and check["next_step"]:
            lines.append(shown(f"      → {check['next_step']}"))
    return lines
