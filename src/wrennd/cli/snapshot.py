"""`wrenn snapshot`: sandboxes frozen under a name, for others to be made of, and what they hold."""

import dataclasses
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from wrennd.cli import place, run_options, standalone, tables, usage
from wrennd.cli.image import age_s, format_age
from wrennd.cli.options import DataDir, Json, SandboxId, configured
from wrennd.cli.pause import told
from wrennd.core.errors import InvalidInput
from wrennd.core.sandboxes import ListedTemplate, Shown
from wrennd.core.sizes import format_bytes
from wrennd.core.timings import Timings

HELP = "Freeze sandboxes into templates; look at snapshots."
app = typer.Typer(cls=usage.Group, no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The template's name.")]
What = Annotated[
    str, typer.Argument(metavar="NAME|ID", help="A template, or a sandbox's last snapshot.")
]
DAMAGED = 1


@app.callback()
def snapshot() -> None:
    """Freeze sandboxes into templates; look at snapshots."""


@app.command("create", cls=usage.Command)
def create(
    sandbox_id: SandboxId,
    name: Name,
    pause: Annotated[
        bool, typer.Option("--pause", help="Leave the sandbox paused, not running on.")
    ] = False,
    as_json: Json = False,
    show_timings: run_options.ShowTimings = False,
    data_dir: DataDir = None,
) -> None:
    """Freeze a sandbox, running or paused, into a template: wrenn create --template NAME."""
    timings = Timings()
    with place.snapshots(configured(data_dir)) as snapshots:
        snapshots.create(sandbox_id, name, timings, ends_paused=pause)
    told(timings, as_json=as_json, show_timings=show_timings)


@app.command("ls", cls=usage.Command)
def ls(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List templates: sizes, age, what they were made of."""
    found = place.templates(configured(data_dir))
    now = datetime.now(UTC)
    if as_json:
        rows = [{**dataclasses.asdict(row), "age_s": _age_s(row, now)} for row in found]
        print(json.dumps({"snapshots": rows}))
    elif not found:
        print("there are no snapshot templates", file=sys.stderr)
    else:
        _print_templates(found, now)


@app.command("rm", cls=usage.Command)
def rm(name: Name, data_dir: DataDir = None) -> None:
    """Remove a template; sandboxes made of it go on."""
    with place.snapshots(configured(data_dir)) as snapshots:
        snapshots.remove(name)


@app.command("show", cls=usage.Command)
def show(what: What, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show a snapshot's chain of memory generations, oldest first."""
    found = standalone.snapshots(standalone.existing(configured(data_dir))).show(what)
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
        return
    _print_shown(found)


@app.command("verify", cls=usage.Command)
def verify(what: What, as_json: Json = False, data_dir: DataDir = None) -> int:
    """Read all of a snapshot and compare it with its checksums. Exit code 1: it is damaged."""
    problems = standalone.snapshots(standalone.existing(configured(data_dir))).verify(what)
    if as_json:
        print(json.dumps({"ok": not problems, "problems": problems}))
    else:
        for problem in problems:
            print(problem)
        if not problems:
            print("everything is as it was written")
    return DAMAGED if problems else 0


@app.command("export", cls=usage.Command)
def export(
    what: What,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file; -: stdout.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Write a snapshot, all of it, into one compressed file for another machine. The guest's memory
    is in it, with the secrets that it had."""
    if str(file) == "-" and sys.stdout.isatty():
        raise InvalidInput("a snapshot is nothing for a terminal", hint="name a file")
    size = standalone.export_snapshot(configured(data_dir), what, file, overwrite=force)
    print(f"{what} is in {file}, {format_bytes(size)}", file=sys.stderr)


@app.command("import", cls=usage.Command)
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What was exported; -: stdin.")],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="The template's; default: as exported.")
    ] = "",
    data_dir: DataDir = None,
) -> None:
    """Make a template of an exported snapshot: wrenn create --template NAME."""
    print(standalone.import_snapshot(configured(data_dir), file, name))


def _print_templates(found: list[ListedTemplate], now: datetime) -> None:
    columns = ("NAME", "FROM", "TIER", "VCPUS", "MEMORY", "TAKES", "OWN", "AGE")
    tables.show(columns, (_row(template, now) for template in found))


def _row(found: ListedTemplate, now: datetime) -> tuple[str, ...]:
    if found.error:
        return found.name, found.error
    return (
        found.name,
        found.template,
        found.tier,
        str(found.vcpus),
        f"{found.mem_mib} MiB",
        format_bytes(found.disk_bytes),
        format_bytes(found.own_bytes),
        format_age(_age_s(found, now)),
    )


def _print_shown(found: Shown) -> None:
    print(
        f"{found.name}: {found.vcpus} vCPUs, {found.mem_mib} MiB; {found.pages} pages, "
        f"{found.zero_pages} of them zero; {format_bytes(found.disk_bytes)} on the disk, "
        f"{format_bytes(found.own_bytes)} of them shared with nobody"
    )
    columns = ("GENERATION", "AGE", "ON DISK", "PAGES", "STORED", "ZEROED", "SHARED BY")
    tables.show(
        columns,
        (
            (
                row.build[:12],
                format_age(int(row.age_s)),
                format_bytes(row.disk_bytes),
                str(row.pages),
                str(row.data_pages),
                str(row.zero_pages),
                str(row.shared_by),
            )
            for row in found.generations
        ),
    )


def _age_s(row: ListedTemplate, now: datetime) -> int:
    return age_s(row.created, now) if row.created else 0
