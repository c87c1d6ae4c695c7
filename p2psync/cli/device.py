"""`device list|rename|remove`: who takes part."""

from pathlib import Path
from typing import Annotated

import typer

from p2psync.cli.client import ControlClient
from p2psync.cli.options import AsJson, DryRun, Home
from p2psync.cli.terminal import print_json, print_lines, say
from p2psync.cli.views import device_list_lines, device_text
from p2psync.errors import UsageError

app = typer.Typer(rich_markup_mode=None, help="The devices of the group.")

Device = Annotated[
    str, typer.Argument(metavar="DEVICE", help="Name, ID, or the first 4 or more of its ID.")
]


@app.command("list")
def list_devices(as_json: AsJson = False, home: Home = "") -> None:
    """List this device and the paired ones."""
    status = ControlClient(Path(home)).call("status")
    if as_json:
        print_json({"device": status["device"], "devices": status["devices"]})
    else:
        print_lines(device_list_lines(status))


@app.command("rename")
def rename(
    device: Device,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its new name.")],
    home: Home = "",
) -> None:
    """Give a device another name."""
    from p2psync.core.names import name_fault

    if fault := name_fault(name):
        raise UsageError(f"“{name}” cannot be the name of a device: {fault}.")
    ControlClient(Path(home)).call("device_rename", device=device, name=name)
    say(f"{device} is now called {name}.")


@app.command("remove")
def remove(
    device: Device, dry_run: DryRun = False, as_json: AsJson = False, home: Home = ""
) -> None:
    """Remove a device from the group: every member refuses it from then on."""
    removed = ControlClient(Path(home)).call("device_remove", device=device, dry_run=dry_run)
    if as_json:
        print_json(removed)
    elif dry_run:
        say(f"Would remove {device_text(removed['device'])}. What it holds would stay on it.")
    else:
        say(f"Removed {device_text(removed['device'])}. What it holds stays on it.")
