"""A terminal in which `wrenn` runs, as a person sees and uses it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

from wrenn_command import WRENN, environment

PATIENCE_S = 90


class Screen:
    """The far end of a terminal in which `wrenn` runs: what a person sees and types."""

    def __init__(self, data_dir, *command, rows=24, cols=80):
        self.master, self.slave = pty.openpty()
        self.resize(rows, cols)
        self.before = termios.tcgetattr(self.slave)
        self.child = subprocess.Popen(
            # Executes `wrenn` in its own place: its pid is the child's.
            ["setsid", "--ctty", WRENN, *command],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=environment(data_dir, TERM="vt100"),
        )
        self.seen = ""

    def resize(self, rows, cols):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def wait_for(self, pattern):
        """The match, once the screen shows it; what came before is forgotten."""
        until = time.monotonic() + PATIENCE_S
        while not (found := re.search(pattern, self.seen)):
            ready = select.select([self.master], [], [], max(0, until - time.monotonic()))[0]
            assert ready, f"{pattern!r} never came; seen: {self.seen!r}"
            self.seen += os.read(self.master, 65536).decode(errors="replace")
        self.seen = self.seen[found.end() :]
        return found

    def close(self):
        self.child.kill()
        self.child.wait()
        os.close(self.master)
        os.close(self.slave)
