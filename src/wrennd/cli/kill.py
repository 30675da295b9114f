"""`wrenn kill`: destroy sandboxes."""

import sys

from wrennd.cli import place
from wrennd.cli.main import FAILED, explain
from wrennd.cli.options import DataDir, SandboxIds, configured
from wrennd.core.errors import Error

HELP = "Destroy sandboxes, running or not."


def kill(sandbox_ids: SandboxIds, data_dir: DataDir = None) -> int:
    """All of them are tried. Exit code 125 when one could not be destroyed."""
    sandboxes = place.existing(configured(data_dir))
    failed = False
    for sandbox_id in sandbox_ids:
        try:
            sandboxes.kill(sandbox_id)
        except Error as error:
            failed = True
            explain(error)
            sys.stderr.flush()
    return FAILED if failed else 0
