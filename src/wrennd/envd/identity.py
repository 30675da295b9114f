"""Who the guest is: all that is named after its sandbox, set when it is told its sandbox's id.

At a boot, init has set the host name already. A guest that was restored from a template still is
the template in every respect, until this has run; no process of a user runs before that.
"""

from __future__ import annotations

import os
from stat import S_ISREG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HOSTNAME = "proc/sys/kernel/hostname"
HOSTNAME_FILE = "etc/hostname"
HOSTS = "etc/hosts"
MACHINE_ID = "etc/machine-id"
DBUS_MACHINE_ID = "var/lib/dbus/machine-id"
# What init bound over /proc/sys/kernel/random/boot_id, which can't be written to.
BOOT_ID = "usr/lib/wrenn/boot_id"
SANDBOX_ID = "run/wrenn/sandbox-id"
MAX_FILE_BYTES = 8 << 20
PIECE_BYTES = 64 << 10
OWN_ADDRESS = "127.0.1.1"
# Odd, so that multiplying by it modulo 2^128 is a permutation: different ids stay different.
SPREAD = 0x9E3779B97F4A7C15F39CC0605CEDC835


def check_sandbox_id(text: str) -> None:
    """Errors: ValueError for what can't be a host name of ours."""
    if not (0 < len(text) <= 63 and text.isascii() and text.isalnum() and text == text.lower()):
        raise ValueError(f"{text!r} is not the id of a sandbox")


def assume(root: str, sandbox_id: str) -> list[str]:
    """Become this sandbox, in the tree below `root`; says what could not be done."""
    at = root.rstrip("/")
    steps: list[tuple[str, Callable[[], None]]] = [
        ("host name", lambda: _set_hostname(at, sandbox_id)),
        ("machine-id", lambda: _set_machine_id(at, machine_id(sandbox_id))),
        ("boot_id", lambda: _replace(f"{at}/{BOOT_ID}", f"{random_uuid()}\n")),
        ("id file", lambda: _write_id_file(at, sandbox_id)),
    ]
    troubles = []
    for name, step in steps:
        try:
            step()
        except OSError as error:
            troubles.append(f"the {name} could not be set: {error}")
    return troubles


def machine_id(sandbox_id: str) -> str:
    """32 hex digits that no other sandbox id has."""
    return f"{int(sandbox_id, 36) * SPREAD % (1 << 128):032x}"


def random_uuid() -> str:
    """Version 4, from the kernel's generator."""
    data = bytearray(os.urandom(16))
    data[6] = data[6] & 0x0F | 0x40
    data[8] = data[8] & 0x3F | 0x80
    text = data.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def hosts_for(text: str, former: str, name: str) -> str:
    """/etc/hosts in which `name` is found, and the former name, at our own address, no more."""
    lines = []
    is_found = False
    for line in text.splitlines():
        fields, hash_mark, comment = line.partition("#")
        address, *names = fields.split() or [""]
        if address == OWN_ADDRESS and former in names:
            # Once, also when the new name stood there already.
            kept = list(dict.fromkeys(name if one == former else one for one in names))
            line = " ".join([address, *kept]) + (f" {hash_mark}{comment}" if hash_mark else "")
            names = kept
        is_found = is_found or name in names
        lines.append(line)
    if not is_found:
        lines.append(f"{OWN_ADDRESS} {name}")
    return "\n".join(lines) + "\n"


def _set_hostname(at: str, name: str) -> None:
    former = _read(f"{at}/{HOSTNAME}").strip()
    if former != name:
        _replace(f"{at}/{HOSTNAME}", name)
    if os.path.isfile(f"{at}/{HOSTNAME_FILE}"):
        _replace(f"{at}/{HOSTNAME_FILE}", f"{name}\n")
    hosts = _read(f"{at}/{HOSTS}") if os.path.lexists(f"{at}/{HOSTS}") else "127.0.0.1 localhost\n"
    changed = hosts_for(hosts, former, name)
    if changed != hosts:
        _replace(f"{at}/{HOSTS}", changed)


def _set_machine_id(at: str, value: str) -> None:
    _replace(f"{at}/{MACHINE_ID}", f"{value}\n", mode=0o444)
    dbus = f"{at}/{DBUS_MACHINE_ID}"
    # Mostly a link to the other one.
    if os.path.isfile(dbus) and not os.path.islink(dbus):
        _replace(dbus, f"{value}\n")


def _write_id_file(at: str, sandbox_id: str) -> None:
    """For processes that were there before: their environment can't be changed."""
    path = f"{at}/{SANDBOX_ID}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _replace(path, f"{sandbox_id}\n")


def _read(path: str) -> str:
    """Errors: OSError, also for what is no file: a FIFO would hold us for ever."""
    fd = _open(path, os.O_RDONLY)
    try:
        data = b""
        # In pieces: the kernel's own files refuse a read that is too long.
        while more := os.read(fd, PIECE_BYTES):
            data += more
            if len(data) > MAX_FILE_BYTES:
                raise OSError(f"{path} is too large")
        return data.decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def _replace(path: str, text: str, *, mode: int = 0o644) -> None:
    """Change a file in its place: it may be a mount point, and nobody reads it now.

    Errors: OSError.
    """
    fd = _open(path, os.O_WRONLY | os.O_CREAT, mode)
    try:
        data = text.encode("utf-8", "surrogateescape")
        if os.write(fd, data) < len(data):
            raise OSError(f"there is no room for {path}")
        # Of a file of the kernel's own it changes nothing, of any other what is left of before.
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def _open(path: str, flags: int, mode: int = 0o644) -> int:
    """Errors: OSError."""
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    if not S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{path} is no file")
    return fd
