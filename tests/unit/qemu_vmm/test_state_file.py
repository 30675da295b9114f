import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.qemu_vmm import state_file
from wrennd.qemu_vmm.state_file import Description, StateFileError, decode, encode

DESCRIPTION = Description(
    qemu=(7, 2, 22),
    accel="tcg",
    config={"machine-config": {"vcpu_count": 1}, "name": "ü"},
    macs=("02:00:00:00:00:01",),
)
STREAM = bytes(range(256)) * 3
FILE = encode(DESCRIPTION, STREAM)


def sealed(body):
    return body + struct.pack("<Q", zlib.crc32(body))


def test_what_was_written_is_read():
    assert decode(FILE) == (DESCRIPTION, STREAM)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "IO Error: File too short to contain CRC"),
        (FILE[:7], "IO Error: File too short to contain CRC"),
        (FILE[:-1], "CRC64 validation failed"),
        (FILE[:20], "CRC64 validation failed"),
        (FILE + b"x", "CRC64 validation failed"),
        (b"\x00\x00\x64\x86\x84\x19\x10\x07" + FILE[8:], "Magic value does not match arch: "),
        (bytes(state_file.MAX_SIZE + 1), "Snapshot size exceeds limit of 10000000 bytes"),
        (sealed(FILE[:8] + struct.pack("<HH", 2, 0) + FILE[12:-8]), "Invalid data version: 2.0.0"),
        (sealed(FILE[:8] + struct.pack("<HH", 1, 9) + FILE[12:-8]), "Invalid data version: 1.9.0"),
        (sealed(FILE[:-8] + b"x"), "its parts are not as long as its header says"),
    ],
)
def test_what_is_none_is_refused(data, problem):
    with pytest.raises(StateFileError) as caught:
        decode(data)
    assert str(caught.value).startswith(problem)


@given(st.integers(min_value=0, max_value=len(FILE) - 1), st.integers(min_value=1, max_value=255))
def test_no_changed_byte_goes_unnoticed(at, change):
    data = bytearray(FILE)
    data[at] ^= change
    with pytest.raises(StateFileError):
        decode(bytes(data))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"qemu":[7,2],"accel":"tcg","config":{},"macs":[]}',
        b"[" * 9999,
    ],
)
def test_a_description_that_is_none(text):
    header = struct.pack("<8sHHIQQ", state_file.MAGIC, *state_file.VERSION, 0, len(text), 0)
    with pytest.raises(StateFileError, match="its description "):
        decode(sealed(header + text))
