"""Who waits for a CPU, by the kernel's count."""

import os
import sys

from wrennd.core.deadline import Deadline
from wrennd.linux import process
from wrennd.linux.schedstat import waited_s

BUSY = "import os\nos.sched_setaffinity(0, {%d})\nwhile True: pass"


def test_two_that_share_a_cpu_wait_for_each_other():
    cpu = min(os.sched_getaffinity(0))
    argv = [sys.executable, "-I", "-S", "-c", BUSY % cpu]
    deadline = Deadline.after(60)
    with process.spawn(argv) as one, process.spawn(argv) as other:
        while waited_s(one.pid) < 0.01 or waited_s(other.pid) < 0.01:
            deadline.check("waiting for a CPU")


def test_of_nobody_it_is_nothing():
    assert waited_s(2**22 + 1) == 0
