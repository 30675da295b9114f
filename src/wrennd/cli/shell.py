"""`wrenn shell`: a login shell in a sandbox, with our terminal."""

from wrennd.cli import exec
from wrennd.cli import run_options as options
from wrennd.cli.options import DataDir, SandboxId

HELP = "Open a shell in a sandbox that runs."
# Small images have no bash.
SHELL = ("/bin/sh", "-c", 'b=$(command -v bash) && exec "$b" -l; exec sh -l')


def shell(
    sandbox_id: SandboxId,
    user: options.User = "user",
    cwd: options.Cwd = "",
    data_dir: DataDir = None,
) -> int:
    """It ends with us."""
    return exec.exec_(
        sandbox_id, list(SHELL), cwd=cwd, user=user, as_terminal=True, data_dir=data_dir
    )
