"""`wrenn df`: what hosts have, what is given out, and what takes disk."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

from wrennd.cli import place, standalone, tables
from wrennd.cli.options import DataDir, Json, configured
from wrennd.core.errors import Forbidden
from wrennd.core.sizes import format_bytes

if TYPE_CHECKING:
    from wrennd.client.blocking import Client
    from wrennd.client.values import Host, Sandbox, Template
    from wrennd.core.space import Holding, Space

HELP = "Show what takes memory and disk."
HOST_COLUMNS = ("HOST", "STATUS", "MEMORY", "GIVEN OUT", "DISK", "FREE", "KEPT FOR PAUSES")
COLUMNS = ("WHAT", "KIND", "STATE", "ON DISK", "OWN", "SHARED")
# As wrenn image ls shows them; --json has all of it.
DIGEST, SHORT_DIGEST = re.compile("[0-9a-f]{32}"), 12
MIB = 1 << 20


def df(as_json: Json = False, data_dir: DataDir = None) -> None:
    """ON DISK is all that a thing has, OWN what would be free if it went, SHARED what others have
    of it, too."""
    config = configured(data_dir)
    client = place.server(config)
    if client is None:
        _show((), standalone.space(config), as_json=as_json)
        return
    try:
        hosts, space = client.hosts(), client.space()
    except Forbidden:  # only keys of the project that administers may see them
        _show_own(client, as_json=as_json)
        return
    _show(hosts, space, as_json=as_json)


def _show(hosts: tuple[Host, ...], space: Space, *, as_json: bool) -> None:
    if as_json:
        found = {"hosts": [dataclasses.asdict(each) for each in hosts], **dataclasses.asdict(space)}
        print(json.dumps(found, default=str))
        return
    if hosts:
        tables.show(HOST_COLUMNS, (_host(each) for each in hosts))
        print()
    tables.show(COLUMNS, map(_row, _ordered(space.holdings)))
    print(f"{format_bytes(space.total_bytes)} in all, what is shared counted once")


def _ordered(found: tuple[Holding, ...]) -> list[Holding]:
    """The largest first; the parts of a sandbox behind it."""
    whole = sorted((each for each in found if not each.of), key=lambda each: -each.total_bytes)
    return [
        one for each in whole for one in (each, *(part for part in found if _is_of(part, each)))
    ]


def _is_of(part: Holding, whole: Holding) -> bool:
    return bool(part.of) and whole.kind == "sandbox" and part.of == whole.name


def _row(found: Holding) -> tuple[str, ...]:
    name = found.name[:SHORT_DIGEST] if DIGEST.fullmatch(found.name) else found.name
    name = f"  {name}" if found.of else name
    shared = found.total_bytes - found.own_bytes
    sizes = (found.total_bytes, found.own_bytes, shared)
    return (name, found.kind, found.note, *map(format_bytes, sizes))


def _show_own(client: Client, *, as_json: bool) -> None:
    """What a project's key may see: its sandboxes and its templates."""
    boxes, templates = client.list(), client.templates()
    if as_json:
        rows = {
            "sandboxes": [dataclasses.asdict(each) for each in boxes],
            "templates": [dataclasses.asdict(each) for each in templates],
        }
        print(json.dumps(rows, default=str))
        return
    things = [*map(_box, boxes), *map(_template, templates)]
    things.sort(key=lambda thing: -thing[0])
    tables.show(("WHAT", "KIND", "STATE", "ON DISK"), (row for _, row in things))


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
