"""Events from the kernel's bytes, and the calls on a real directory."""

import os

import pytest

from wrennd.envd import inotify
from wrennd.envd.inotify import Inotify, parse


def record(wd, mask, name):
    padded = name.ljust(-(-(len(name) + 1) // 16) * 16, b"\0") if name else b""
    head = b"".join(n.to_bytes(4, "little", signed=n < 0) for n in (wd, mask, 0, len(padded)))
    return head + padded


def test_parse():
    data = record(1, inotify.IN_CREATE, b"name") + record(-1, inotify.IN_Q_OVERFLOW, b"")
    data += record(7, inotify.IN_DELETE, b"\xff" * 20)
    found = [(event.wd, event.mask, event.name) for event in parse(data)]
    assert found == [
        (1, inotify.IN_CREATE, "name"),
        (-1, inotify.IN_Q_OVERFLOW, ""),
        (7, inotify.IN_DELETE, os.fsdecode(b"\xff" * 20)),
    ]


def test_a_real_directory(tmp_path):
    watch = Inotify()
    try:
        wd = watch.add(os.fspath(tmp_path), inotify.IN_CREATE)
        assert watch.read() == []
        (tmp_path / "ü").touch()
        (event,) = watch.read()
        assert (event.wd, event.mask, event.name) == (wd, inotify.IN_CREATE, "ü")
        watch.remove(wd)
        watch.remove(wd)
        assert [event.mask for event in watch.read()] == [inotify.IN_IGNORED]
        with pytest.raises(FileNotFoundError):
            watch.add(os.fspath(tmp_path / "no"), inotify.IN_CREATE)
    finally:
        watch.close()
        watch.close()
