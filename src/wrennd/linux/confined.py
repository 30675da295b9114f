"""Run a program of ours confined: its modules are read first, with our rights, then it is shut in.

For programs that need no files but those they are given as descriptors: `confine.py` builds the
same cell for programs that are executed, and would have to bind Python and this package into it.

    python -I -S -c BOOT DESCRIPTION

DESCRIPTION is JSON: what `confine.py` takes (`argv` and `env` are not used), and `module`, whose
`main` is called with `inputs`, and whose result becomes the exit status. Exits with 126 and one
line on stderr when a step fails.
"""

import importlib
import json
import os
import sys
import traceback  # before the files are out of reach: an uncaught exception needs it
from pathlib import Path
from typing import Any, NoReturn

import wrennd
from wrennd.linux import confine


def argv(interpreter: str | os.PathLike[str], description: dict[str, Any]) -> list[str]:
    """What to spawn. The interpreter finds this very package, whatever its own path is."""
    parent = os.fspath(Path(os.path.realpath(wrennd.__path__[0])).parent)
    boot = (
        f"import sys; sys.path.insert(0, {parent!r}); "
        "from wrennd.linux.confined import main; main()"
    )
    return [os.fspath(interpreter), "-I", "-S", "-c", boot, json.dumps(description)]


def main() -> NoReturn:
    want = json.loads(sys.argv[1])
    program = importlib.import_module(want["module"])
    for step, act in confine.STEPS:
        if act is confine.execute:
            continue
        try:
            act(want)
        except (OSError, ValueError) as error:
            os.write(2, f"confined: {step}: {error}\n".encode())
            os._exit(126)
    try:
        sys.exit(program.main(want["inputs"]))
    except Exception:  # noqa: BLE001 - the outermost frame; the interpreter's own printing reads files
        os.write(2, traceback.format_exc().encode())
        os._exit(1)
