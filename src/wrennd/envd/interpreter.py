"""The C modules of the interpreter that envd uses without their wrappers.

`socket`, `signal` and `json` pull in enum, re, collections and selectors: 13 ms on a fast host
and some fifteen times that in an emulated guest, more than the rest of envd together. What lies
beneath them has kept its form since Python 3.4, and the guest's interpreter is the one that we
ship; the unit tests run this module on whichever interpreter runs them.
"""

from _json import encode_basestring_ascii, make_scanner
from _operator import _compare_digest
from _signal import SIG_DFL, pthread_sigmask, signal  # type: ignore[import-not-found]
from _signal import SIG_SETMASK as _SIG_SETMASK
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SHUT_WR,
    SO_KEEPALIVE,
    SO_LINGER,
    SO_REUSEADDR,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    socket,
)

__all__ = [
    "AF_INET",
    "AF_INET6",
    "IPPROTO_TCP",
    "SHUT_WR",
    "SOCK_STREAM",
    "SOL_SOCKET",
    "SO_KEEPALIVE",
    "SO_LINGER",
    "SO_REUSEADDR",
    "TCP_NODELAY",
    "accept",
    "encode_basestring_ascii",
    "is_same_secret",
    "make_scanner",
    "reset_signals",
    "socket",
]

_UNTOUCHABLE = (9, 19)  # SIGKILL, SIGSTOP
_SIGNALS = 31


def accept(listener: socket) -> socket:
    """The next connection, non-blocking, not inherited by children. Errors: OSError."""
    connection = socket(fileno=listener._accept()[0])  # type: ignore[attr-defined]
    connection.setblocking(False)
    return connection


def is_same_secret(one: bytes, other: bytes) -> bool:
    """Compare in a time that depends on the lengths only."""
    return _compare_digest(one, other)


def reset_signals() -> None:
    """Every signal's default action and an empty mask, as a command expects to find them.

    A shell that starts envd in the background leaves SIGINT and SIGQUIT ignored, and the
    interpreter ignores SIGPIPE; ignored signals would stay so in every command.
    """
    for number in range(1, _SIGNALS + 1):
        if number not in _UNTOUCHABLE:
            signal(number, SIG_DFL)
    pthread_sigmask(_SIG_SETMASK, ())
