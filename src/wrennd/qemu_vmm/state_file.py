"""The file that `/snapshot/create` leaves beside the memory: what the machine is, and the state of
its devices. Pure; integers are little-endian.

    magic      8 bytes, MAGIC
    version    two u16: major, minor
    reserved   u32, 0
    sizes      two u64: of the description, of the stream
    description   JSON, UTF-8: `Description`
    stream     QEMU's migration stream, without memory
    CRC        u64: CRC-32 of all before it

Read are files of this major version whose minor one is not newer. Errors read as Firecracker's,
whose files are refused by their magic, as ours are by Firecracker.
"""

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

MAGIC = b"WRENNVM\x01"
VERSION = (1, 0)
MAX_SIZE = 10_000_000  # Firecracker's

_HEADER = struct.Struct("<8sHHIQQ")
_CRC = struct.Struct("<Q")


class StateFileError(Exception):
    """The file can't be used; the text is what stands behind Firecracker's prefixes."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a VMM must know to build the machine that the stream fits.

    qemu: version, three numbers; the first two are the series that a stream belongs to. accel:
    what executed the guest. config: as `GET /vm/config` showed it. macs: of the interfaces, in
    their order.
    """

    qemu: tuple[int, int, int]
    accel: str
    config: dict[str, Any]
    macs: tuple[str, ...]


def encode(description: Description, stream: bytes) -> bytes:
    text = json.dumps(vars(description), separators=(",", ":")).encode()
    header = _HEADER.pack(MAGIC, *VERSION, 0, len(text), len(stream))
    data = header + text + stream
    return data + _CRC.pack(zlib.crc32(data))


def decode(data: bytes) -> tuple[Description, bytes]:
    """Errors: StateFileError."""
    if len(data) > MAX_SIZE:
        raise StateFileError(f"Snapshot size exceeds limit of {MAX_SIZE} bytes")
    if len(data) < _CRC.size:
        raise StateFileError("IO Error: File too short to contain CRC")
    if not data.startswith(MAGIC):
        found = int.from_bytes(data[: len(MAGIC)], "little")
        raise StateFileError(f"Magic value does not match arch: {found}")
    body = data[: -_CRC.size]
    if len(body) < _HEADER.size:
        raise StateFileError("CRC64 validation failed")
    _, major, minor, _, text_size, stream_size = _HEADER.unpack_from(body)
    if major != VERSION[0] or minor > VERSION[1]:
        raise StateFileError(f"Invalid data version: {major}.{minor}.0")
    if _CRC.unpack_from(data, len(body))[0] != zlib.crc32(body):
        raise StateFileError("CRC64 validation failed")
    if _HEADER.size + text_size + stream_size != len(body):
        raise StateFileError("its parts are not as long as its header says")
    end = _HEADER.size + text_size
    return _description(body[_HEADER.size : end]), body[end:]


def _description(text: bytes) -> Description:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise StateFileError("its description is not JSON") from None
    match value:
        case {
            "qemu": [int(major), int(minor), int(micro)],
            "accel": str(accel),
            "config": dict(config),
            "macs": list(macs),
        } if all(isinstance(mac, str) for mac in macs):
            return Description(
                qemu=(major, minor, micro), accel=accel, config=config, macs=tuple(macs)
            )
    raise StateFileError("its description lacks fields")
