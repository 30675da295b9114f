"""The pager's program: makes a keeper of the descriptors that it was given, and runs it.

Started by `host/pagers.py` through `linux/confined.py`, which calls `main`.
"""

import gc
import os
import socket
from collections.abc import Mapping
from typing import Any

from wrennd.pager.image import ImageError, load, read_ahead
from wrennd.pager.keeper import BROKEN, Keeper, Options, Sockets, say
from wrennd.pager.touched import TouchedError, WorkingSet


def main(inputs: Mapping[str, Any]) -> int:
    """Serve one VM until it is gone. `inputs`: descriptors by number, and options.

    uffd_socket, control_socket, starter, header, memfiles, touched (-1 for none); window,
    has_balloon, handshake_timeout_s, stalled_after_s.
    """
    uffd_socket, control_socket, starter = (
        socket.socket(fileno=inputs[name]) for name in ("uffd_socket", "control_socket", "starter")
    )
    control_socket.listen(4)
    try:
        image = load(_read(inputs["header"]), inputs["memfiles"])
    except ImageError as error:
        say(str(error))
        return BROKEN
    options = Options(
        window=inputs["window"],
        has_balloon=inputs["has_balloon"],
        handshake_timeout_s=inputs["handshake_timeout_s"],
        stalled_after_s=inputs["stalled_after_s"],
        recorded=_recorded(inputs["touched"], image.pages),
    )
    keeper = Keeper(
        image, options, Sockets(uffd=uffd_socket, control=control_socket, starter=starter)
    )
    # What there is now stays for ever; what comes later is freed by counting references.
    gc.disable()
    gc.freeze()
    keeper.start_reader(lambda: read_ahead(image, inputs["memfiles"], keeper.wanted))
    for file in inputs["memfiles"]:
        os.close(file)
    return keeper.run()


def _read(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def _recorded(fd: int, pages: int) -> WorkingSet:
    """Only a hint, so a damaged one is an empty one."""
    if fd < 0:
        return WorkingSet.empty(pages)
    try:
        return WorkingSet.decode(_read(fd), pages)
    except (TouchedError, OSError) as error:
        say(f"the recorded working set is not used: {error}")
        return WorkingSet.empty(pages)
