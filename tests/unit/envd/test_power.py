"""Input events, and a button made of a FIFO."""

import os
import struct

from hypothesis import given
from hypothesis import strategies as st

from wrennd.envd.loop import Loop
from wrennd.envd.power import EVENT_BYTES, PowerButton, is_power_pressed

EVENT = struct.Struct("llHHi")
PRESSED = EVENT.pack(1, 2, 1, 116, 1)
RELEASED = EVENT.pack(1, 2, 1, 116, 0)
OTHER_KEY = EVENT.pack(1, 2, 1, 30, 1)
SYNC = EVENT.pack(1, 2, 0, 0, 0)


def test_the_struct_is_the_kernel_s():
    assert EVENT.size == EVENT_BYTES


@given(st.lists(st.sampled_from([PRESSED, RELEASED, OTHER_KEY, SYNC])), st.binary(max_size=23))
def test_only_the_power_key_going_down_counts(events, rest):
    assert is_power_pressed(b"".join(events) + rest) == (PRESSED in events)


def test_a_press_is_told(tmp_path):
    loop = Loop()
    os.mkfifo(tmp_path / "event3")
    (tmp_path / "mouse0").touch()
    pressed = []
    PowerButton(loop, lambda: (pressed.append(True), loop.stop()), str(tmp_path))
    with (tmp_path / "event3").open("wb", buffering=0) as button:
        button.write(RELEASED + SYNC)
        button.write(PRESSED + SYNC)
        loop.run()
    assert pressed == [True]
    loop.after(0.001, loop.stop)
    loop.run()
    loop.close()


def test_a_machine_without_buttons(tmp_path):
    loop = Loop()
    PowerButton(loop, loop.stop, str(tmp_path / "none"))
    loop.close()
