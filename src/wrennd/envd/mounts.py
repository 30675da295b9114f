"""Which filesystem a path lies on, from /proc/self/mountinfo."""

from __future__ import annotations

import os

MOUNTINFO = "/proc/self/mountinfo"
# Their servers change files without the guest's kernel noticing, and may hang.
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "fuse")


def filesystem_types(mountinfo: str) -> dict[str, str]:
    """Types of filesystems by their device's number as "major:minor"."""
    types = {}
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        if tail:
            types[head.split(" ")[2]] = tail.split(" ")[0]
    return types


def find_mount(mountinfo: str, filesystem: str) -> str:
    """The first mount point of a type of filesystem; empty when there is none."""
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        if tail.split(" ")[0] == filesystem:
            return head.split(" ")[4]
    return ""


def read_mountinfo() -> str:
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def network_filesystem(path: str) -> str:
    """The type of the network filesystem that a path lies on, else empty. Errors: OSError."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    kind = filesystem_types(read_mountinfo()).get(number, "")
    return kind if kind.partition(".")[0] in NETWORK else ""
