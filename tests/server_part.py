"""A stand-in for a part of the server: says that it runs, and ends as it is told.

    python -m server_part FILE [ends|stays]

Appends its pid to FILE. `ends`: it exits with 3 at once. `stays`: until SIGTERM, which it notes.
"""

import os
import signal
import sys
from pathlib import Path


def main():
    said, how = Path(sys.argv[1]), sys.argv[2]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with said.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if how == "ends":
        sys.exit(3)
    signal.sigwait({signal.SIGTERM})
    with said.open("a") as file:
        file.write("asked to end\n")


if __name__ == "__main__":
    main()
