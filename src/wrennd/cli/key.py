"""`wrenn key`: API keys of a server."""

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from wrennd.cli import place, tables, usage
from wrennd.cli.image import format_age
from wrennd.cli.options import DataDir, Json, configured
from wrennd.client.values import Key
from wrennd.core.errors import InvalidInput, NotFound

HELP = "Make, list and revoke API keys (needs the server)."
COLUMNS = ("ID", "NAME", "PROJECT", "KEY", "AGE", "LAST USED", "REVOKED")
app = typer.Typer(cls=usage.Group, no_args_is_help=True)


@app.callback()
def key() -> None:
    """Make, list and revoke API keys (needs the server)."""


@app.command("create", cls=usage.Command)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    project: Annotated[
        str, typer.Option(metavar="NAME", help="Whose sandboxes it sees; default: ours.")
    ] = "",
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it: it can't be shown again."""
    made = place.required_server(configured(data_dir)).create_key(name, project=project)
    print(json.dumps(dataclasses.asdict(made), default=str) if as_json else made.key)


@app.command("ls", cls=usage.Command)
def ls(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List keys, revoked ones too."""
    found = place.required_server(configured(data_dir)).keys()
    if as_json:
        print(json.dumps({"keys": [dataclasses.asdict(each) for each in found]}, default=str))
        return
    tables.show(COLUMNS, (_row(each) for each in found))


@app.command("revoke", cls=usage.Command)
def revoke(
    which: Annotated[
        str, typer.Argument(metavar="ID|NAME", help="As wrenn key ls shows it.", show_default=False)
    ],
    data_dir: DataDir = None,
) -> None:
    """From now on nobody is let in by it; its open streams end."""
    client = place.required_server(configured(data_dir))
    client.revoke_key(_one(client.keys(), which).id)


def _one(keys: Sequence[Key], which: str) -> Key:
    """The key of that id, or the one of that name that counts. Errors: NotFound, InvalidInput."""
    found = [each for each in keys if which == each.id]
    found = found or [each for each in keys if which == each.name and each.revoked_at is None]
    if not found:
        raise NotFound(f"there is no key {which!r} that counts", hint="wrenn key ls lists them")
    if len(found) > 1:
        raise InvalidInput(
            f"{len(found)} keys have the name {which!r}", hint="give the ID that wrenn key ls shows"
        )
    return found[0]


def _row(found: Key) -> tuple[str, ...]:
    return (
        found.id,
        found.name,
        found.project,
        f"{found.prefix}…",
        _age(found.created_at),
        *(f"{age} ago" if age else "" for age in map(_age, (found.last_used_at, found.revoked_at))),
    )


def _age(at: datetime | None) -> str:
    return "" if at is None else format_age(int((datetime.now(UTC) - at).total_seconds()))
