"""`wrenn top`: what running sandboxes use, looked at again and again."""

import dataclasses
import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from wrennd.cli import place, tables
from wrennd.cli.options import DataDir, Json, configured
from wrennd.client.values import Point, Sandbox
from wrennd.core.errors import NotFound, WrongState
from wrennd.core.sizes import format_bytes

if TYPE_CHECKING:
    from wrennd.client.blocking import Client

HELP = "Show what running sandboxes use, until Ctrl-C (needs the server)."
COLUMNS = ("ID", "TEMPLATE", "VCPUS", "CPU", "MEMORY", "OF", "DISK")
CLEAR = "\x1b[H\x1b[J"
Used = tuple[Sandbox, Point | None]


def top(
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
    interval: Annotated[float, typer.Option(metavar="S", min=0.5, help="Look every S s.")] = 2.0,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """--json looks once, too."""
    client = place.required_server(configured(data_dir))
    if as_json:
        rows = [
            {"sandbox_id": box.id, "used": dataclasses.asdict(used) if used else None}
            for box, used in _look(client)
        ]
        print(json.dumps({"sandboxes": rows}))
        return
    is_shown_again = not once and sys.stdout.isatty()
    while True:
        found = _look(client)
        if is_shown_again:
            sys.stdout.write(CLEAR)
        if found or is_shown_again:
            tables.show(COLUMNS, (_row(*each) for each in found))
        else:
            print("no sandbox runs", file=sys.stderr)
        if not is_shown_again:
            return
        time.sleep(interval)


def _look(client: "Client") -> list[Used]:
    """Those that use most first."""
    found = [(box, _last(client, box.id)) for box in client.list(state=["running"])]
    return sorted(found, key=lambda each: -(each[1].cpu_pct if each[1] else 0.0))


def _last(client: "Client", sandbox_id: str) -> Point | None:
    try:
        points = client.metrics(sandbox_id, range="5m")
    except (NotFound, WrongState):  # it ended, or was paused, meanwhile
        return None
    return points[-1] if points else None


def _row(box: Sandbox, used: Point | None) -> tuple[str, ...]:
    sizes = (format_bytes(used.mem_bytes), format_bytes(used.disk_bytes)) if used else ("", "")
    return (
        box.id,
        box.template,
        str(box.vcpus),
        f"{used.cpu_pct:.0f} %" if used else "",
        sizes[0],
        f"{box.memory_mib} MiB",
        sizes[1],
    )
