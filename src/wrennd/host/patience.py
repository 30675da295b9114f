"""How long a guest may take to get ready: time that its VMM waited for a CPU is not the guest's.

A guest that hangs is given up after a fixed time. On a host with more to do than it has CPUs for
(twenty guests that boot at once on two of them), that time says nothing of the guest: it is longer
there by as much as the VMM had to wait.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded

LONGEST_S = 600.0  # whatever the host does, somebody waits for the answer
_WORTH_S = 1.0  # for less than that, asking again is not worth it
T = TypeVar("T")


def patiently(ask: Callable[[Deadline], T], limit_s: float, waited_s: Callable[[], float]) -> T:
    """What `ask` returns within `limit_s` and the time that was waited for CPUs.

    ask: called again, with a later deadline, when its time was too short. waited_s: how long the
    VMM has waited for a CPU since we began. Errors: DeadlineExceeded, and those of `ask`.
    """
    began, limit = time.monotonic(), limit_s
    while True:
        try:
            return ask(Deadline(began + limit))
        except DeadlineExceeded:
            longer = min(limit_s + waited_s(), LONGEST_S)
            if longer < limit + _WORTH_S:
                raise
            limit = longer
