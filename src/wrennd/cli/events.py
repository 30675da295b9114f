"""`wrenn events`: what happened to a sandbox, and how long it took."""

import dataclasses
import json
from typing import Annotated

import typer

from wrennd.cli import place, tables
from wrennd.cli.options import DataDir, Json, SandboxId, configured
from wrennd.client.values import Event

HELP = "Show what happened to a sandbox (needs the server)."
COLUMNS = ("AT", "WHAT", "RESULT", "TOOK", "PHASES")


def events(
    sandbox_id: SandboxId,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=200, help="At most so many.")] = 50,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """The last one is the newest."""
    sandboxes = place.required_sandboxes(configured(data_dir))
    found = sandboxes.client.events(sandboxes.match(sandbox_id), limit=limit)[::-1]
    if as_json:
        print(json.dumps({"events": [dataclasses.asdict(each) for each in found]}, default=str))
        return
    tables.show(COLUMNS, (_row(each) for each in found))


def _row(found: Event) -> tuple[str, ...]:
    data = found.data if isinstance(found.data, dict) else {}
    phases = data.get("phases") or []
    took = data.get("total_ms")
    return (
        found.at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        found.kind,
        str(data.get("result") or data.get("cause") or data.get("error") or ""),
        f"{took:.0f} ms" if isinstance(took, int | float) else "",
        ", ".join(f"{phase['name']} {phase['ms']:.0f}" for phase in phases),
    )
