"""Run all benchmarks that have limits, one after the other; which of them did not hold.

Each is a program of its own, so that none measures with what another has imported or opened.
Exits with 1 when one of them does, or fails. `-n` is passed on.
"""

import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("boot", "start", "pause", "pager", "collapse", "server")


def main() -> int:
    failed = []
    for name in PROGRAMS:
        print(f"==== {name}", flush=True)
        began = time.monotonic()
        program = Path(__file__).with_name(f"{name}.py")
        if subprocess.run([sys.executable, program, *sys.argv[1:]], check=False).returncode:
            failed.append(name)
        print(f"==== {name}: {time.monotonic() - began:.0f} s\n", flush=True)
    print(f"limits that do not hold: {', '.join(failed)}" if failed else "all limits hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
