"""What callers note about a file: extended attributes `user.e2b.KEY`, headers `X-Metadata-KEY`."""

from __future__ import annotations

import os

from wrennd.envd.paths import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.connection import Headers

PREFIX = "user.e2b."
HEADER_PREFIX = "x-metadata-"
# Together they must fit into one block of the filesystem, which may have 4 KiB.
MAX_BYTES = 3 << 10
MAX_KEY_BYTES = 200


def from_headers(headers: dict[str, str]) -> dict[str, str]:
    """Metadata of a request. Errors: ValueError when it is more than a file can hold."""
    found = {}
    for name, value in headers.items():
        if name.startswith(HEADER_PREFIX) and len(name) > len(HEADER_PREFIX):
            # Header values came as Latin-1, which is how clients send the bytes of UTF-8.
            raw = value.encode("latin-1").decode("utf-8", "replace")
            found[name[len(HEADER_PREFIX) :]] = raw
    size = sum([len(key) + len(value.encode()) for key, value in found.items()])
    if size > MAX_BYTES or any(len(key) > MAX_KEY_BYTES for key in found):
        raise ValueError(f"the metadata exceeds {MAX_BYTES} bytes")
    return found


def read_metadata(path: str | int) -> dict[str, str]:
    """Nothing where the filesystem has no attributes, or the file has gone."""
    found = {}
    try:
        for name in os.listxattr(path):
            if name.startswith(PREFIX):
                value = os.getxattr(path, name)
                found[printable(name[len(PREFIX) :])] = value.decode("utf-8", "replace")
    except OSError:
        return {}
    return found


def replace_metadata(fd: int, metadata: dict[str, str]) -> None:
    """Make these, and no others, the file's. Errors: OSError."""
    for key in _known(fd):
        if key not in metadata:
            os.removexattr(fd, PREFIX + key)
    for key, value in metadata.items():
        os.setxattr(fd, PREFIX + key, value.encode())


def _known(fd: int) -> list[str]:
    try:
        names = os.listxattr(fd)
    except OSError:
        # A filesystem without attributes has none to remove.
        return []
    return [name[len(PREFIX) :] for name in names if name.startswith(PREFIX)]


def as_headers(metadata: dict[str, str]) -> Headers:
    """For a download's reply; what no header can hold is left out."""
    return [
        (f"X-Metadata-{key}", value.encode().decode("latin-1"))
        for key, value in metadata.items()
        if key.isascii() and value.isprintable() and key.replace("-", "").isalnum()
    ]
