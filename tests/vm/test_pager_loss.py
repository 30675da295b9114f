"""A pager that is lost while its guest waits for a page: right memory afterwards, or no guest.

The worker is stopped first, so that the guest surely waits when it is killed.
"""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from kept_sandbox import KeptSandbox, Workload
from pager_guest import until
from wrennd.core.config import Config
from wrennd.core.deadline import Deadline
from wrennd.core.errors import GuestFailed, VmmFailed, WrongState
from wrennd.core.states import State
from wrennd.host import pagers
from wrennd.linux import process
from wrennd.snapshot.verify import verify


@pytest.fixture
def workload(sandboxes, layout):
    """In a sandbox that was just resumed: next to none of its memory is there yet."""
    sandbox = KeptSandbox(sandboxes, Config(data_dir=layout.data_dir))
    try:
        sandbox.create("busybox", 128)
        workload = Workload.start(sandbox, mib=16)
        workload.fill(1)
        sandbox.pause()
        sandbox.resume()
        yield workload
    finally:
        sandbox.kill()


@pytest.fixture
def pager(workload):
    found = workload.sandbox.record
    pager = pagers.adopt(found.pager_pid, found.pager_start_time, workload.sandbox.paths.run)
    yield pager
    pager.detach()


@contextmanager
def waiting_for_a_page(workload, pager):
    """The check, which has been asked for, and can't go on: the worker is stopped."""
    os.kill(pager.stats().worker, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(workload.ask, "check")
        vmm = workload.sandbox.record.vmm_pid
        until(lambda: stands_still(vmm), "a guest that waits for a page")
        yield asked


def stands_still(vmm):
    """Whether a thread of its QEMU waits for a missing page."""
    (qemu,) = Path(f"/proc/{vmm}/task/{vmm}/children").read_text().split()
    tasks = Path(f"/proc/{qemu}/task").iterdir()
    return any((task / "wchan").read_text() == "handle_userfault" for task in tasks)


def test_a_lost_worker_is_replaced_and_memory_is_right(workload, pager):
    sandbox = workload.sandbox
    with waiting_for_a_page(workload, pager) as asked:
        for number in (1, 2):
            os.kill(pager.stats().worker, signal.SIGKILL)
            until(lambda wanted=number: pager.stats().restarts == wanted, "another worker")
        workload.judge(asked.result())
    workload.step(2, 600)
    sandbox.pause(sandbox.check_against_full)
    sandbox.resume()
    workload.check()


def test_without_a_pager_there_is_no_guest_and_its_last_snapshot_is_whole(
    workload, pager, sandboxes
):
    sandbox = workload.sandbox
    with waiting_for_a_page(workload, pager) as asked:
        worker = pager.stats().worker
        process.kill_and_wait(pager.pid, pager.start_time, signal.SIGKILL, Deadline.after(60))
        os.kill(worker, signal.SIGKILL)
        (listed,) = [one for one in sandboxes.list() if one.id == sandbox.id]
        assert listed.state is State.ERROR
        assert "served its memory has ended" in listed.error
        with pytest.raises((GuestFailed, VmmFailed, WrongState)):
            asked.result()
    assert verify(sandbox.newest().directory) == ()
    sandbox.resume(discard=True)
    workload.check()
