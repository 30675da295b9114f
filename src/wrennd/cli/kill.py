"""`wrenn kill`: destroy sandboxes."""

import json
import sys

from wrennd.cli import follow, place
from wrennd.cli import run_options as options
from wrennd.cli.main import FAILED, explain
from wrennd.cli.options import DataDir, Json, SandboxIds, configured
from wrennd.core.errors import Error
from wrennd.core.timings import Timings

HELP = "Destroy sandboxes, running or not."


def kill(
    sandbox_ids: SandboxIds,
    as_json: Json = False,
    show_timings: options.ShowTimings = False,
    data_dir: DataDir = None,
) -> int:
    """All of them are tried. Exit code 125 when one could not be destroyed."""
    sandboxes = place.existing(configured(data_dir))
    failed = False
    for sandbox_id in sandbox_ids:
        timings = Timings()
        try:
            sandboxes.kill(sandbox_id, timings=timings if as_json or show_timings else None)
        except Error as error:
            failed = True
            explain(error)
            sys.stderr.flush()
            continue
        if as_json:
            print(json.dumps({"sandbox_id": sandbox_id, **timings.to_json()}), flush=True)
        elif show_timings:
            follow.print_timings(timings)
    return FAILED if failed else 0
