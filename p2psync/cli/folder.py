"""`folder add|list|remove|pause|resume|rescan`: what is shared."""

from pathlib import Path
from typing import Annotated

import typer

from p2psync.cli.client import ControlClient
from p2psync.cli.options import AsJson, DryRun, Home
from p2psync.cli.terminal import absolute, print_json, print_lines, say
from p2psync.cli.views import folder_list_lines
from p2psync.errors import UsageError

app = typer.Typer(rich_markup_mode=None, help="The shared folders.")

Name = Annotated[str, typer.Argument(metavar="FOLDER", help="Name of the folder.")]


@app.command("add")
def add(
    path: Annotated[str, typer.Argument(metavar="PATH", help="The directory to share.")],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="Name in the group.  [default: that of the directory]"
        ),
    ] = None,
    with_devices: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="DEVICE", help="Share with this device only; may be repeated."
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    home: Home = "",
) -> None:
    """Share a directory with all paired devices, or with those named by --with.

    Devices that share a folder of the same name with each other merge its content.
    """
    from p2psync.core.names import name_fault

    if name is not None and (fault := name_fault(name)):
        raise UsageError(f"“{name}” cannot be the name of a folder: {fault}.")
    added = ControlClient(Path(home)).call(
        "folder_add",
        path=str(absolute(path)),
        name=name,
        with_devices=with_devices or None,
        dry_run=dry_run,
    )
    if as_json:
        print_json(added)
        return
    verb = "Would share" if dry_run else "Sharing"
    partners = ", ".join(added["shared_with"]) or "no device yet: pair one with `p2psync pair new`"
    say(f"{verb} {added['path']} as “{added['name']}” ({added['mode']}) with {partners}.")


@app.command("list")
def list_folders(as_json: AsJson = False, home: Home = "") -> None:
    """List the shared folders, and those that other devices offer."""
    status = ControlClient(Path(home)).call("status")
    if as_json:
        print_json({"folders": status["folders"], "offered": status["offered"]})
    else:
        print_lines(folder_list_lines(status))


@app.command("remove")
def remove(name: Name, dry_run: DryRun = False, as_json: AsJson = False, home: Home = "") -> None:
    """Stop sharing a folder on this device. Its files stay, here and elsewhere."""
    removed = ControlClient(Path(home)).call("folder_remove", name=name, dry_run=dry_run)
    if as_json:
        print_json(removed)
    else:
        verb = "Would stop" if dry_run else "Stopped"
        say(f"{verb} sharing “{removed['name']}”; the files stay in {removed['path']}.")


@app.command("pause")
def pause(name: Name, home: Home = "") -> None:
    """Neither send nor receive changes of a folder until it is resumed."""
    ControlClient(Path(home)).call("folder_pause", name=name)
    say(f"Paused “{name}”. Continue with `p2psync folder resume`.")


@app.command("resume")
def resume(name: Name, home: Home = "") -> None:
    """Continue with a paused folder."""
    ControlClient(Path(home)).call("folder_resume", name=name)
    say(f"Resumed “{name}”.")


@app.command("rescan")
def rescan(name: Name, home: Home = "") -> None:
    """Look through a folder for changes now."""
    ControlClient(Path(home)).call("folder_rescan", name=name)
    say(f"Scanning “{name}”.")
