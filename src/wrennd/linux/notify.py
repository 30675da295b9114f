"""Words to the service manager that started us: the datagrams of sd_notify(3)."""

import contextlib
import socket

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(address: str, *words: str) -> None:
    """Send the assignments, such as READY, as one message.

    address: what NOTIFY_SOCKET said, a path or an abstract name that begins with @; "" when nobody
    wants to know. Nobody hears it either when the manager is gone, which is no error of ours.
    """
    if not address:
        return
    name = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, contextlib.suppress(OSError):
        out.sendto("\n".join(words).encode(), name)
