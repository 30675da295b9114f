"""Make a network namespace, name it, and hand back what can only be made inside it.

Run as `python -I -S netns_child.py CHANNEL PATH [SYSCTL=VALUE...]` by `linux/netns.py`; a program
of its own, since a serving process must not change its namespace. PATH is an empty file. Over the
Unix socket CHANNEL go two descriptors that belong to the new namespace: a routing netlink socket
and an open /dev/net/tun. Exits with 1 and one line on stderr when a step fails.

It uses `_socket` because importing `socket` builds enumerations for 10 ms, nearly doubling the
time that this takes.
"""

import _socket
import ctypes
import fcntl
import os
import struct
import sys

CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SHARED = 4096, 16384, 1 << 20

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
libc.unshare.argtypes = [ctypes.c_int]


def main() -> None:
    channel, path, *settings = sys.argv[1:]
    share_directory(os.path.dirname(path))
    _check(libc.unshare(CLONE_NEWNET), "unshare")
    for setting in settings:
        name, _, value = setting.partition("=")
        with open(f"/proc/sys/net/{name}", "w") as file:
            file.write(value)
    _mount("/proc/self/ns/net", path, MS_BIND)
    route = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, 0)
    tun = os.open("/dev/net/tun", os.O_RDWR)
    rights = struct.pack("=ii", route.fileno(), tun)
    _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fileno=int(channel)).sendmsg(
        [b"."], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)]
    )


def share_directory(directory: str) -> None:
    """Make the directory of names a shared mount, as `ip netns` does.

    Else every mount namespace made meanwhile (another VMM's, a systemd unit's) keeps its own copy
    of our mount, and with it the network namespace, after we unmounted it.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)  # two first ones at once would stack two mounts
    with open("/proc/self/mountinfo") as mounts:
        if any(line.split()[4] == directory for line in mounts):
            return
    _mount(directory, directory, MS_BIND | MS_REC)
    _mount("none", directory, MS_SHARED | MS_REC)


def _mount(source: str, target: str, flags: int) -> None:
    _check(
        libc.mount(source.encode(), target.encode(), b"none", flags, None),
        f"mount {source} on {target}",
    )


def _check(result: int, what: str) -> None:
    if result != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(str(error))
