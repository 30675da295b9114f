"""libc as ctypes sees it: loaded once, errno turned into OSError."""

import ctypes
import os
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, *context: Any) -> int:
    """Return `result`, or raise the OSError of the errno that a -1 left."""
    if result == -1:
        errno = ctypes.get_errno()
        what = " ".join(str(part) for part in context)
        raise OSError(errno, f"{os.strerror(errno)}: {what}" if what else os.strerror(errno))
    return result


def function(name: str, *argtypes: Any, restype: Any = ctypes.c_int) -> Any:
    """A libc function with its types declared."""
    found = getattr(libc, name)
    found.argtypes = list(argtypes)
    found.restype = restype
    return found
