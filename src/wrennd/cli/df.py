"""`wrenn df`: what hosts have, what is given out, and what takes disk."""

import dataclasses
import json
from typing import Any

from wrennd.cli import place, tables
from wrennd.cli.options import DataDir, Json, configured
from wrennd.client.values import Host, Sandbox, Template
from wrennd.core.errors import Forbidden
from wrennd.core.sizes import format_bytes

HELP = "Show what takes memory and disk (needs the server)."
HOST_COLUMNS = ("HOST", "STATUS", "MEMORY", "GIVEN OUT", "DISK", "FREE", "KEPT FOR PAUSES")
COLUMNS = ("WHAT", "KIND", "STATE", "ON DISK")
MIB = 1 << 20


def df(as_json: Json = False, data_dir: DataDir = None) -> None:
    client = place.required_server(configured(data_dir))
    try:
        hosts = client.hosts()
    except Forbidden:  # only keys of the project that administers may see them
        hosts = ()
    boxes, templates = client.list(), client.templates()
    if as_json:
        rows = {
            "hosts": [dataclasses.asdict(each) for each in hosts],
            "sandboxes": [dataclasses.asdict(each) for each in boxes],
            "templates": [dataclasses.asdict(each) for each in templates],
        }
        print(json.dumps(rows, default=str))
        return
    if hosts:
        tables.show(HOST_COLUMNS, (_host(each) for each in hosts))
        print()
    things = [*map(_box, boxes), *map(_template, templates)]
    things.sort(key=lambda thing: -thing[0])
    tables.show(COLUMNS, (row for _, row in things))


def _host(found: Host) -> tuple[str, ...]:
    has: dict[str, Any] = dict(found.capacity or {})

    def size(name: str, unit: int = 1) -> str:
        return format_bytes(int(has.get(name, 0)) * unit)

    return (
        found.id,
        found.status,
        size("memory_mib", MIB),
        size("memory_mib_reserved", MIB),
        size("disk_bytes"),
        size("disk_bytes_free"),
        size("disk_bytes_reserved"),
    )


def _box(found: Sandbox) -> tuple[int, tuple[str, ...]]:
    row = (found.id, "sandbox", found.state, format_bytes(found.disk_bytes))
    return found.disk_bytes, row


def _template(found: Template) -> tuple[int, tuple[str, ...]]:
    return found.size_bytes, (found.name, found.kind, "", format_bytes(found.size_bytes))
