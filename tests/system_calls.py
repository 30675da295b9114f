"""Every system call that a function makes, one by one: counted, made to fail, or the last one.

Python tells a profiler of each call of a C function before it is made. So no hooks in the product
are needed to stop it at any point, and no point is forgotten when the code changes.
"""

import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

HARMLESS = frozenset({"fspath", "_path_normpath", "getpid", "geteuid", "urandom"})


@contextmanager
def watched(act: Callable[[str], None], *, only: Collection[str] = ()) -> Iterator[None]:
    """Call `act` with the name of each function of the module posix before it is called; or of
    those with the names `only`, be they of posix or of fcntl."""
    modules = ("posix", "fcntl") if only else ("posix",)

    def profile(frame, event, function):
        if event == "c_call" and getattr(function, "__module__", None) in modules:
            name = function.__name__
            if name in only if only else name not in HARMLESS:
                sys.setprofile(None)  # what `act` calls is not watched
                act(name)
                sys.setprofile(profile)

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def names_of(work: Callable[[], object]) -> list[str]:
    """The calls that `work` makes, in order."""
    seen: list[str] = []
    with watched(seen.append):
        work()
    return seen


def run_and_kill(work: Callable[[], object], call: int, *, only: Collection[str] = ()) -> bool:
    """Run `work` in a child that is killed before the call of this number; whether it was."""
    child = os.fork()
    if child == 0:
        try:
            kill = _counted(call, lambda: os.kill(os.getpid(), signal.SIGKILL))
            with watched(kill, only=only):
                work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def run_and_fail(work: Callable[[], object], call: int, error: OSError) -> object:
    """Run `work`; instead of the call of this number, `error` is raised."""

    def fail():
        raise error

    with watched(_counted(call, fail)):
        return work()


def _counted(call: int, act: Callable[[], None]) -> Callable[[str], None]:
    made = iter(range(1 << 30))

    def count(name):
        if next(made) == call:
            act()

    return count
