import os

import pytest

from wrennd.qemu_vmm.resources import TokenBucket
from wrennd.qemu_vmm.sinks import BoundedFile, Limited, Nowhere, Stream, open_sink, sink_of


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    ends = {"reader": reader}
    sink = Stream(writer)
    yield ends, sink
    sink.close()
    if ends["reader"] >= 0:
        os.close(ends["reader"])


def append_only(path):
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def not_append(path):
    return os.open(path, os.O_WRONLY | os.O_CREAT)


@pytest.mark.parametrize("open_file", [append_only, not_append])
def test_a_full_file_loses_its_older_half(tmp_path, open_file):
    path = tmp_path / "console"
    sink = BoundedFile(open_file(path), limit=96)
    for number in range(100):
        sink.write(b"%03d\n" % number)
        assert path.stat().st_size <= 96
        lines = path.read_bytes().split()
        assert lines[-1] == b"%03d" % number
        assert lines == [b"%03d" % n for n in range(number + 1 - len(lines), number + 1)]
    sink.close()


def test_what_was_there_counts(tmp_path):
    path = tmp_path / "console"
    path.write_bytes(b"x" * 90)
    sink = BoundedFile(append_only(path), limit=100)
    sink.write(b"y" * 20)
    assert path.read_bytes() == b"y" * 20
    sink.write(b"z" * 1000)
    assert path.read_bytes() == b"z" * 50
    sink.close()


def test_a_pipe_takes_what_fits_and_never_waits(pipe):
    ends, sink = pipe
    assert sink.write(b"a" * 5000) == 0
    dropped = sink.write(b"b" * (1 << 20))
    assert 0 < dropped < 1 << 20
    os.read(ends["reader"], 1 << 20)
    assert sink.write(b"c" * 100) == 0


def test_a_pipe_without_a_reader_takes_nothing(pipe):
    ends, sink = pipe
    os.close(ends["reader"])
    ends["reader"] = -1
    assert sink.write(b"abc") == 3
    assert sink.write(b"abc") == 3


def test_a_fifo_needs_no_reader(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    sink = open_sink(os.fspath(tmp_path / "fifo"))
    assert sink.write(b"abc") == 0
    assert sink.write(b"x" * (1 << 20)) > 0
    sink.close()


def test_a_closed_descriptor_is_nowhere():
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    sink = sink_of(writer)
    assert isinstance(sink, Nowhere)
    assert sink.write(b"abc") == 3


def test_a_full_disk_drops(tmp_path):
    sink = BoundedFile(os.open("/dev/full", os.O_WRONLY))
    assert sink.write(b"abc") == 3
    sink.close()


def test_a_limit_lets_the_burst_and_then_the_rate_through(tmp_path):
    now = [0.0]
    path = tmp_path / "console"
    bucket = TokenBucket(size=100, one_time_burst=50, refill_time=1000)
    sink = Limited(open_sink(os.fspath(path)), bucket, clock=lambda: now[0])
    assert sink.write(b"a" * 200) == 50
    assert sink.write(b"b") == 1
    now[0] = 0.5
    assert sink.write(b"c" * 100) == 50
    now[0] = 100.0
    assert sink.write(b"d" * 150) == 50
    sink.close()
    assert path.stat().st_size == 300
