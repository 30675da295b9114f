"""Descriptors and timers."""

import os

import pytest

from wrennd.envd.loop import READ, Loop


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def test_timers_run_in_their_order_and_can_be_cancelled(loop):
    ran = []
    loop.after(0.003, loop.stop)
    loop.after(0.002, lambda: ran.append("late"))
    cancelled = loop.after(0.001, lambda: ran.append("cancelled"))
    loop.after(0, lambda: ran.append("early"))
    cancelled.cancel()
    cancelled.cancel()
    loop.run()
    assert ran == ["early", "late"]


def test_soon_is_not_now(loop):
    ran = []

    def first() -> None:
        loop.soon(lambda: ran.append("second"))
        ran.append("first")
        loop.soon(loop.stop)

    loop.soon(first)
    loop.run()
    assert ran == ["first", "second"]


def test_a_callback_that_raises_stops_nobody(loop, capsys):
    loop.soon(lambda: 1 // 0)
    loop.soon(loop.stop)
    loop.run()
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_descriptors(loop):
    read, write = os.pipe()
    seen = []

    def ready(_events: int) -> None:
        seen.append(os.read(read, 100))
        loop.unwatch(read)
        loop.unwatch(read)
        os.write(write, b"unseen")
        loop.after(0.001, loop.stop)

    loop.watch(read, READ, ready)
    loop.watch(read, READ, ready)
    os.write(write, b"x")
    loop.run()
    assert seen == [b"x"]
    os.close(read)
    os.close(write)
