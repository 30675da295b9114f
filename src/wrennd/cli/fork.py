"""`wrenn fork`: sandboxes that go on where another one is."""

import json
import sys
from typing import Annotated

import typer

from wrennd.cli import follow, main, place
from wrennd.cli import run_options as options
from wrennd.cli.options import DataDir, Json, SandboxId, configured
from wrennd.core.model import MAX_CHILDREN
from wrennd.core.sandboxes import Forked
from wrennd.core.timings import Timings

HELP = "Make sandboxes that go on where one is, each as itself, and print their ids."
Count = Annotated[
    int, typer.Option(metavar="N", min=1, max=MAX_CHILDREN, help="How many to make, at once.")
]
Report = Annotated[
    bool,
    typer.Option("--report", help="Say what each has of its own, and what of the source's."),
]


def fork(
    sandbox_id: SandboxId,
    count: Count = 1,
    report: Report = False,
    as_json: Json = False,
    show_timings: options.ShowTimings = False,
    data_dir: DataDir = None,
) -> int:
    """The exit code: that of a failure when a child is missing."""
    timings = Timings()
    with place.changing(configured(data_dir)) as sandboxes:
        children = sandboxes.fork(sandbox_id, count, timings)
    if as_json:
        told = [_told(child) for child in children]
        print(json.dumps({"children": told, **timings.to_json()}))
    else:
        for child in children:
            _tell(child, report=report)
        if show_timings:
            follow.print_timings(timings)
    errors = [child.error for child in children if child.error is not None]
    for error in errors:
        main.explain(error)
    return main.FAILED if errors else 0


def _tell(child: Forked, *, report: bool) -> None:
    if child.error is not None:
        return
    print(child.id, flush=True)
    if report:
        print(f"  of its own: {', '.join(child.unique)}", file=sys.stderr)
        for what in child.shared:
            print(f"  as its source: {what}", file=sys.stderr)


def _told(child: Forked) -> dict[str, object]:
    found: dict[str, object] = {"sandbox_id": child.id}
    if child.error is not None:
        return found | {"error": child.error.to_wire()}
    return found | {
        "unique": child.unique,
        "shared": child.shared,
        "timings_ms": child.timings.phases_ms,
    }
