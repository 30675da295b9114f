"""Entropy from the host into the kernel's generator.

Written to /dev/urandom it would be mixed in but not used before the next reseed, up to a minute
later: two guests restored from one snapshot would draw the same numbers until then. So it is
credited and the reseed is asked for. From linux/random.h.
"""

from __future__ import annotations

import os
from fcntl import ioctl

RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207
MAX_BYTES = 512


def mix_in(seed: bytes) -> None:
    """Errors: ValueError for a seed that is too long; PermissionError without root's rights."""
    if len(seed) > MAX_BYTES:
        raise ValueError(f"the seed has {len(seed)} bytes, of at most {MAX_BYTES}")
    if not seed:
        return
    fd = os.open("/dev/urandom", os.O_WRONLY)
    try:
        # struct rand_pool_info: bits of entropy, bytes that follow.
        head = (len(seed) * 8).to_bytes(4, "little") + len(seed).to_bytes(4, "little")
        ioctl(fd, RNDADDENTROPY, head + seed)
        ioctl(fd, RNDRESEEDCRNG)
    finally:
        os.close(fd)
