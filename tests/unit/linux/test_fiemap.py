"""Where blocks lie; what is shared is tested on a filesystem that can, in tests/root."""

import ctypes
import os

import pytest

from wrennd.linux import fiemap


def test_the_numbers_are_the_kernel_s():
    # _IOWR('f', 11, struct fiemap): direction 3, size 32, type 'f', number 11.
    assert (3 << 30) | (fiemap._HEAD.size << 16) | (ord("f") << 8) | 11 == fiemap.FS_IOC_FIEMAP
    assert fiemap._EXTENT.size == 56
    assert ctypes.sizeof(ctypes.c_long) == 8


def test_a_plain_file_shares_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(10_000))
    assert fiemap.shared_extents_of(path) == []


def test_an_empty_file_shares_nothing(tmp_path):
    path = tmp_path / "file"
    path.touch()
    assert fiemap.shared_extents_of(path) == []


def test_symlinks_are_not_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(OSError, match="symbolic links"):
        fiemap.shared_extents_of(tmp_path / "link")
