"""Structs of loop devices, byte by byte."""

from pathlib import Path

import pytest

from wrennd.linux import loop
from wrennd.linux.devices import BlockDevice
from wrennd.linux.loop import LoopStatus


def test_structs_are_as_long_as_the_kernels():
    assert loop.INFO64.size == 232
    assert loop.CONFIG.size == 304


def test_a_configuration_has_its_file_flags_and_place():
    config = loop.encode_config(
        7, read_only=True, offset=4096, size_limit=8192, name="wrenn-abc123"
    )
    assert len(config) == 304
    assert config[:8] == b"\x07\0\0\0\0\x02\0\0"  # descriptor, 512
    found = LoopStatus.decode(config[8 : 8 + loop.INFO64.size])
    assert found == LoopStatus(
        number=0,
        dev=0,
        inode=0,
        offset=4096,
        size_limit=8192,
        is_read_only=True,
        is_autoclear=True,
        name="wrenn-abc123",
    )


def test_every_device_goes_with_its_last_user():
    for read_only in (False, True):
        config = loop.encode_config(3, read_only=read_only)
        assert LoopStatus.decode(config[8:240]).is_autoclear


def test_a_name_that_does_not_fit_is_refused():
    loop.encode_config(3, read_only=True, name="n" * 63)
    with pytest.raises(ValueError, match="too long"):
        loop.encode_config(3, read_only=True, name="n" * 64)


def test_a_status_tells_the_file_as_stat_does():
    here = Path("/").stat()
    raw = loop.INFO64.pack(here.st_dev, here.st_ino, 0, 0, 0, 5, 0, 0, 4, b"name", b"", b"", 0, 0)
    found = LoopStatus.decode(raw)
    assert (found.dev, found.inode, found.number) == (here.st_dev, here.st_ino, 5)
    assert found.device == BlockDevice(7, 5)
    assert (found.is_read_only, found.is_autoclear) == (False, True)


def test_a_device_as_text_is_what_tables_want():
    assert str(BlockDevice(253, 12)) == "253:12"
    assert BlockDevice.from_dev(BlockDevice(259, 70_000).dev) == BlockDevice(259, 70_000)
