"""Run as a program: stand in for a VMM. Carry frames between a slot's TAP device and a "guest".

    guest_cable.py SLOT_NETNS UID GUEST_NETNS

The guest is a namespace with a TAP device `eth0` of its own. The slot's `tap0` is opened as a
VMM does it: as the slot's uid, without any capability (only the device node is opened before).
Prints "ready" when both ends are open.
"""

import ctypes
import fcntl
import os
import select
import struct
import sys

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
CLONE_NEWNET = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    slot, uid, guest = sys.argv[1:]
    enter(guest)
    eth0 = attach(open_tun(), "eth0")
    enter(slot)
    device = open_tun()  # its node belongs to root here, to the VMM in a VMM's root
    os.setgroups([])
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))
    tap0 = attach(device, "tap0")
    print("ready", flush=True)
    other = {eth0: tap0, tap0: eth0}
    while True:
        for fd in select.select([eth0, tap0], [], [])[0]:
            try:
                os.write(other[fd], os.read(fd, 65536))
            except OSError as error:
                if error.errno != 5:  # EIO: that end is not up yet
                    raise


def enter(netns: str) -> None:
    fd = os.open(netns, os.O_RDONLY)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)


def open_tun() -> int:
    return os.open("/dev/net/tun", os.O_RDWR)


def attach(fd: int, name: str) -> int:
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


if __name__ == "__main__":
    main()
