"""Our terminal, lent to a command in a sandbox: raw while it has it, as before afterwards.

In raw mode nothing that is typed means anything here: Ctrl-C and Ctrl-Z go to the command.
"""

import contextlib
import os
import queue
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from wrennd.core.errors import Error, InvalidInput
from wrennd.core.model import TerminalSize
from wrennd.core.sandboxes import Running


def size() -> TerminalSize:
    """Our terminal's size. Errors: InvalidInput when stdin or stdout is none."""
    if not (os.isatty(0) and os.isatty(1)):
        raise InvalidInput(
            "a terminal is needed, and stdin or stdout is none",
            hint="wrenn exec -i passes input without one",
        )
    found = os.get_terminal_size(1)
    # A terminal that does not know its size says 0 by 0.
    return TerminalSize(cols=found.columns or 80, rows=found.lines or 24)


@contextmanager
def lent(running: Running) -> Iterator[None]:
    """Raw mode, and every change of size passed on, until the block ends."""
    before = termios.tcgetattr(0)
    sizes: queue.SimpleQueue[TerminalSize | None] = queue.SimpleQueue()

    def changed(number: int, frame: FrameType | None) -> None:
        sizes.put(size())

    sender = threading.Thread(target=_send, args=(running, sizes), daemon=True)
    handler = signal.signal(signal.SIGWINCH, changed)
    sender.start()
    tty.setraw(0)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, handler)
        sizes.put(None)
        sys.stdout.flush()
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _send(running: Running, sizes: "queue.SimpleQueue[TerminalSize | None]") -> None:
    """Not in the signal handler: a call takes time, and may come while another is made."""
    # The sandbox may go meanwhile; its end is told by the events.
    with contextlib.suppress(Error):
        while (found := sizes.get()) is not None:
            running.resize(found)
