import os

import pytest

from wrennd.vmm import console


def test_tail_is_the_last_lines_and_can_not_steer_a_terminal(tmp_path):
    log = tmp_path / "console.log"
    log.write_bytes(b"one\r\ntwo \x1b[2Jx\n\n" + b"three \xff\n")
    assert console.tail(log, 2) == ["two ?[2Jx", "three \ufffd"]


def test_tail_of_what_is_not_a_file_is_empty(tmp_path):
    (tmp_path / "link").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "fifo")
    assert console.tail(tmp_path / "link", 5) == []
    assert console.tail(tmp_path / "fifo", 5) == []
    assert console.tail(tmp_path / "missing", 5) == []


def test_trim_empties_only_what_grew_too_large(tmp_path):
    log = tmp_path / "console.log"
    log.write_bytes(b"x" * 100)
    console.trim(log)
    assert log.stat().st_size == 100
    log.write_bytes(bytes(console.MAX_BYTES + 4096))
    console.trim(log)
    assert log.stat().st_size == 0


def test_what_is_written_behind_a_hole_is_all_there_is(tmp_path):
    log = tmp_path / "vmm.log"
    with log.open("wb", buffering=0) as writer:
        writer.seek(console.MAX_BYTES + 4096)
        writer.write(b"one\ntwo\n")
        console.trim(log)
        assert console.tail(log, 5) == ["one", "two"]


def test_bounded_ends_with_its_block_while_the_process_lives(tmp_path):
    pidfd = os.pidfd_open(os.getpid())
    with console.bounded((tmp_path / "console.log",), pidfd):
        pass
    os.close(pidfd)


def test_pieces_of_a_console(tmp_path):
    log = tmp_path / "console.log"
    log.write_bytes(b"0123456789")
    first = console.read(log, 0, 4)
    assert (first.content, console.read(log, 4, 100).content) == (b"0123", b"456789")
    assert console.read(log, 10, 4).content == console.read(log, 1 << 62, 4).content == b""
    log.rename(tmp_path / "before")
    log.write_bytes(b"0123456789")
    assert console.read(log, 0, 4).file != first.file


def test_a_vmm_can_not_have_another_file_read_as_its_console(tmp_path):
    (tmp_path / "link").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "missing", "."):
        with pytest.raises(FileNotFoundError):
            console.read(tmp_path / name, 0, 4)
