"""Our ends of a process's streams."""

import os

import pytest

from wrennd.envd import pipes
from wrennd.envd.loop import Loop
from wrennd.envd.pipes import Input, Output


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def test_writes_are_answered_in_order_once_they_are_taken(loop):
    read, write = os.pipe()
    answers, taken = [], bytearray()
    given = Input(loop, write)
    sizes = [10, 0, 300_000, 5]
    for number, size in enumerate(sizes):
        given.write(bytes(size), lambda error, number=number: answers.append((number, error)))
    assert answers == [(0, None), (1, None)]
    given.close_after_writes(lambda error: (answers.append(("closed", error)), loop.stop()))

    def drain(_events: int) -> None:
        taken.extend(os.read(read, 65536))

    loop.watch(read, 1, drain)
    loop.run()
    loop.unwatch(read)
    while data := os.read(read, 65536):
        taken.extend(data)
    assert answers == [(0, None), (1, None), (2, None), (3, None), ("closed", None)]
    assert len(taken) == sum(sizes)
    os.close(read)


def test_a_closed_reader_fails_what_waits(loop):
    read, write = os.pipe()
    codes = []
    given = Input(loop, write)
    given.write(bytes(300_000), lambda error: (codes.append(error.code), loop.stop()))
    os.close(read)
    loop.run()
    given.write(b"x", lambda error: codes.append(error.code))
    given.close_after_writes(lambda error: codes.append(error))
    given.close()
    assert codes == ["internal", "internal", None]


def test_what_may_wait_is_bounded(loop):
    read, write = os.pipe()
    answers = []
    given = Input(loop, write)
    given.write(bytes(pipes.MAX_QUEUED_INPUT), answers.append)
    given.write(bytes(100_000), answers.append)
    assert [error.code for error in answers] == ["resource_exhausted"]
    given.close()
    assert [error.code for error in answers] == ["resource_exhausted", "internal"]
    os.close(read)


def test_output_is_read_in_pieces_until_the_end(loop):
    read, write = os.pipe()
    os.write(write, b"abcde")
    os.close(write)
    seen = []
    output = Output(
        loop, "stdout", read, 2, lambda _o, data: seen.append(data), lambda _o: loop.stop()
    )
    output.note_owed()
    assert output.owed == 5
    loop.run()
    assert seen == [b"ab", b"cd", b"e"]
    assert (output.owed, output.fd) == (0, -1)
    output.close()


def test_paused_output_stays_in_the_pipe(loop):
    read, write = os.pipe()
    seen = []
    output = Output(loop, "stdout", read, 100, lambda _o, data: seen.append(data), lambda _o: None)
    output.pause()
    os.write(write, b"x")
    loop.after(0.001, loop.stop)
    loop.run()
    assert seen == []
    output.close()
    output.resume()
    os.close(write)
