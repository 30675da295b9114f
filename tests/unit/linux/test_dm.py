"""What goes to device-mapper and comes from it, as bytes; no kernel is asked."""

import struct

import pytest

from wrennd.linux import dm
from wrennd.linux.devices import BlockDevice
from wrennd.linux.dm import Answer, Request, Target

# include/uapi/linux/dm-ioctl.h on x86-64.
NUMBERS = {
    dm.DM_VERSION: 0xC138FD00,
    dm.DM_DEV_CREATE: 0xC138FD03,
    dm.DM_DEV_REMOVE: 0xC138FD04,
    dm.DM_DEV_SUSPEND: 0xC138FD06,
    dm.DM_TABLE_LOAD: 0xC138FD09,
    dm.DM_TABLE_STATUS: 0xC138FD0C,
}


def test_structs_are_as_long_as_the_kernels():
    assert dm.HEADER.size == 312
    assert dm.TARGET.size == 40


@pytest.mark.parametrize(("command", "number"), NUMBERS.items())
def test_ioctl_numbers(command, number):
    assert dm.number(command) == number


def test_a_request_is_a_header_with_its_data_behind():
    sent = Request(name="wrenn-a", uuid="U", flags=2, event=5, data=b"table", targets=1).encode(400)
    assert len(sent) == 400
    assert struct.unpack_from("=3I2I", sent) == (4, 0, 0, 400, 312)
    assert struct.unpack_from("=IiII", sent, 20) == (1, 0, 2, 5)
    assert sent[48:56] == b"wrenn-a\0"
    assert sent[176:178] == b"U\0"
    assert sent[312:318] == b"table\0"


@pytest.mark.parametrize("field", ["name", "uuid"])
def test_what_does_not_fit_is_refused(field):
    limit = {"name": 127, "uuid": 128}[field]
    Request(**{field: "x" * limit})
    with pytest.raises(ValueError, match="too long"):
        Request(**{field: "x" * (limit + 1)})


TABLE = (
    Target(start=0, length=32768, kind="snapshot", params="7:1 7:2 P 8 1 discard_zeroes_cow"),
    Target(start=32768, length=16384, kind="linear", params="7:2 33040"),
)


def test_a_table_is_aligned_and_says_where_the_next_line_is():
    sent = dm.encode_table(TABLE)
    assert len(sent) % 8 == 0
    start, length, _, following, kind = dm.TARGET.unpack_from(sent)
    assert (start, length, kind.rstrip(b"\0")) == (0, 32768, b"snapshot")
    assert sent[40:following].rstrip(b"\0") == TABLE[0].params.encode()
    assert sent[following - 1] == 0
    assert dm.TARGET.unpack_from(sent, following)[:2] == (32768, 16384)


def answered(table):
    """As the kernel fills it: `next` from the beginning of all."""
    data = b""
    for target in table:
        params = target.params.encode() + b"\0"
        end = -(-(len(data) + dm.TARGET.size + len(params)) // 8) * 8
        head = dm.TARGET.pack(target.start, target.length, 0, end, target.kind.encode())
        data = (data + head + params).ljust(end, b"\0")
    return data


def test_the_lines_of_an_answer():
    assert dm.decode_targets(answered(TABLE), 2) == TABLE
    assert dm.decode_targets(b"", 0) == ()


def test_flags_of_an_answer():
    dev = BlockDevice(253, 3).dev
    raw = dm.HEADER.pack(
        4, 47, 0, 312, 312, 0, 2, dm.DM_SUSPEND_FLAG | dm.DM_ACTIVE_PRESENT_FLAG, 0, 0, dev,
        b"wrenn-a", b"", b"",
    )  # fmt: skip
    found = Answer.decode(raw).info
    assert (found.name, found.device, found.open_count) == ("wrenn-a", BlockDevice(253, 3), 2)
    assert (found.is_suspended, found.has_table) == (True, True)


def test_names_of_devices():
    entries = b""
    for name, device, is_last in (("one", 0, False), ("another", 1, True)):
        body = struct.pack("=QI", BlockDevice(253, device).dev, 0) + name.encode() + b"\0"
        size = -(-len(body) // 8) * 8
        entries += struct.pack("=QI", BlockDevice(253, device).dev, 0 if is_last else size)
        entries += body[12:].ljust(size - 12, b"\0")
    assert dict(dm.decode_names(entries)) == {
        "one": BlockDevice(253, 0),
        "another": BlockDevice(253, 1),
    }


@pytest.mark.parametrize("nothing", [b"", bytes(12), bytes(16)])
def test_no_devices(nothing):
    assert dict(dm.decode_names(nothing)) == {}


def test_the_devices_of_a_table():
    devices = (BlockDevice(7, 1), BlockDevice(7, 300))
    data = struct.pack("=II2Q", 2, 0, *(device.dev for device in devices))
    assert dm.decode_deps(data) == devices


def test_udev_is_told_to_leave_devices_alone():
    """Flags only, no cookie: the kernel's event number has them in its upper half."""
    assert dm.DM_UDEV_DISABLE_ALL & 0xFFFF == 0
    assert dm.DM_UDEV_DISABLE_ALL >> 16 == 0x2F
