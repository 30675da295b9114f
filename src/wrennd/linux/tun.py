"""TAP devices: make one that stays and belongs to a uid, attach to one (drivers/net/tun.c)."""

import fcntl
import os
import struct

IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUNSETIFF = 0x400454CA  # _IOW('T', 202, int)
TUNSETPERSIST = 0x400454CB  # _IOW('T', 203, int)
TUNSETOWNER = 0x400454CC  # _IOW('T', 204, int)
TUNSETOFFLOAD = 0x400454D0  # _IOW('T', 208, unsigned int)


def make_tap(tun: int, name: str, *, owner: int) -> None:
    """Make the TAP device `name` in the namespace in which `tun` (/dev/net/tun) was opened.

    It outlives the descriptor, and a process of uid `owner` may open it without capabilities. No
    group is set: a group would let further processes in. Frames may carry virtio-net headers.
    """
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    fcntl.ioctl(tun, TUNSETOWNER, owner)
    fcntl.ioctl(tun, TUNSETPERSIST, 1)


def open_tun() -> int:
    """/dev/net/tun, not attached to anything yet; never blocks on reading or writing frames."""
    return os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)


def attach_tap(tun: int, name: str, *, headers: bool = True) -> None:
    """Make `tun` the queue of the TAP device `name`, with virtio-net headers on its frames.

    Without `headers` a read is a frame as it goes over a wire: complete, and no longer than the
    MTU. Errors: EPERM when it doesn't exist or is somebody else's, EBUSY when it has its queue.
    """
    flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if headers else 0)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    if not headers:
        # Who had the device before may have told it to leave work to the reader.
        fcntl.ioctl(tun, TUNSETOFFLOAD, 0)
