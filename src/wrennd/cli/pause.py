"""`wrenn pause` and `wrenn resume`: a sandbox's memory and disk kept, and brought back."""

import json
from typing import Annotated

import typer

from wrennd.cli import follow, place
from wrennd.cli import run_options as options
from wrennd.cli.options import DataDir, Json, SandboxId, configured
from wrennd.core.timings import Timings

PAUSE_HELP = "Keep a sandbox's memory and disk, and free the rest."
RESUME_HELP = "Let a paused sandbox go on where it was."


def pause(
    sandbox_id: SandboxId,
    as_json: Json = False,
    show_timings: options.ShowTimings = False,
    data_dir: DataDir = None,
) -> None:
    timings = Timings()
    with place.changing(configured(data_dir)) as sandboxes:
        sandboxes.pause(sandbox_id, timings)
    told(timings, as_json=as_json, show_timings=show_timings)


def resume(
    sandbox_id: SandboxId,
    cold: Annotated[
        bool, typer.Option("--cold", help="Boot it from its disk; its memory is not restored.")
    ] = False,
    discard: Annotated[
        bool,
        typer.Option(
            "--discard", help="Also one in error: what it did since its last snapshot is lost."
        ),
    ] = False,
    as_json: Json = False,
    show_timings: options.ShowTimings = False,
    data_dir: DataDir = None,
) -> None:
    timings = Timings()
    with place.changing(configured(data_dir)) as sandboxes:
        sandboxes.resume(sandbox_id, timings, cold=cold, discard=discard)
    told(timings, as_json=as_json, show_timings=show_timings, how="cold" if cold else "restored")


def told(timings: Timings, *, as_json: bool, show_timings: bool, how: str = "") -> None:
    """What is to be said of an operation that is done."""
    if as_json:
        print(json.dumps({**({"how": how} if how else {}), **timings.to_json()}))
        return
    if how == "cold":
        print("booted from its disk; its memory was not restored")
    if show_timings:
        follow.print_timings(timings)
