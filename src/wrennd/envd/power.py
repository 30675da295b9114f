"""The power button: KEY_POWER on any input device becomes SIGPWR to the guest's init.

Only an envd that init itself started listens: on any other machine the button is not ours.
"""

from __future__ import annotations

import os
import sys

from wrennd.envd.loop import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wrennd.envd.loop import Loop

INPUT = "/dev/input"
# struct input_event on 64 bit: two longs of time, then u16 type, u16 code, s32 value.
EVENT_BYTES = 24
EV_KEY = 1
KEY_POWER = 116
PRESSED = 1
SIGPWR = 30
INIT_PID = 1
BATCH = 64


def is_power_pressed(data: bytes) -> bool:
    """Whether one of these input events is the power key going down."""
    wanted = (
        EV_KEY.to_bytes(2, "little")
        + KEY_POWER.to_bytes(2, "little")
        + PRESSED.to_bytes(4, "little")
    )
    whole = len(data) - len(data) % EVENT_BYTES
    return any(data[at + 16 : at + EVENT_BYTES] == wanted for at in range(0, whole, EVENT_BYTES))


def signal_init() -> None:
    os.kill(INIT_PID, SIGPWR)


class PowerButton:
    """Owns the input devices that there are when envd starts."""

    def __init__(self, loop: Loop, pressed: Callable[[], None], folder: str = INPUT) -> None:
        self._loop = loop
        self._pressed = pressed
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            if name.startswith("event"):
                self._open(os.path.join(folder, name))

    def _open(self, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            sys.stderr.write(f"envd: {path} can't be read: {error}\n")
            return
        self._loop.watch(fd, READ, lambda _events: self._ready(fd))

    def _ready(self, fd: int) -> None:
        try:
            data = os.read(fd, EVENT_BYTES * BATCH)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.unwatch(fd)
            os.close(fd)
        elif is_power_pressed(data):
            self._pressed()
