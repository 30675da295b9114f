"""Pause and resume on KVM and on Linux 6.1: twelve generations, and never a wrong page.

That kernel can't say which pages a QEMU has written since it was restored (no PAGEMAP_SCAN), so all
that a guest has touched is in its dirty set; what is stored must be small all the same.
"""

import os
import signal

import pytest

from kept_sandbox import KeptSandbox, Workload
from wrennd.core.deadline import Deadline
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxRequest
from wrennd.core.states import State
from wrennd.core.timings import Timings
from wrennd.host import pagers
from wrennd.host.local_snapshots import LocalSnapshots
from wrennd.linux import process
from wrennd.snapshot.verify import verify

MEM_MIB = 128
IDLE_MIB = 16
# A chain of eleven is collapsed into one.
LENGTHS = [*range(1, 12), 1]
COMPARED = (0, 5, 11)  # byte for byte with all of the guest's memory, which takes a while


@pytest.fixture
def sandbox(sandboxes, config):
    made = KeptSandbox(sandboxes, config)
    yield made
    made.kill()


@pytest.fixture
def workload(sandbox):
    sandbox.create("busybox", MEM_MIB)
    return Workload.start(sandbox, mib=8)


@pytest.mark.timeout(3600)
def test_twelve_generations(workload):
    sandbox = workload.sandbox
    lengths = []
    for number in range(len(LENGTHS)):
        workload.step(number, 300)
        sandbox.pause(*([sandbox.check_against_full] if number in COMPARED else []))
        lengths.append(len(sandbox.newest().manifest.generations))
        sandbox.resume()
        workload.check()
    assert lengths == LENGTHS
    sandbox.pause()
    assert verify(sandbox.newest().directory) == ()


def test_an_idle_guest_stores_next_to_nothing(workload, sandboxes):
    sandbox = workload.sandbox
    workload.fill(1)
    sandbox.pause()
    sandbox.resume()
    sandbox.sh("true")
    sandbox.pause()
    newest = sandbox.newest()
    assert len(newest.manifest.generations) == 2
    stored = newest.memfiles[-1].stat().st_blocks * 512
    assert stored <= IDLE_MIB << 20
    sandbox.resume()
    workload.check()


def test_a_template_is_frozen_and_spawns(workload, sandboxes, config):
    workload.fill(2)
    snapshots = LocalSnapshots(sandboxes)
    snapshots.create(workload.sandbox.id, "lab-template", Timings())
    made = new_sandbox_id()
    try:
        workload.check()
        sandboxes.create(SandboxRequest(id=made, template="lab-template"), Timings())
        other = KeptSandbox(sandboxes, config)
        other.id, other.paths = made, sandboxes.layout.sandbox(made)
        spawned = Workload(other, workload.digest)
        spawned.check()
        spawned.step(3, 300)
        spawned.check()
        workload.check()
    finally:
        if sandboxes.layout.sandbox(made).data.exists():
            sandboxes.kill(made)
        snapshots.remove("lab-template")


def test_without_its_pager_a_guest_ends_and_its_snapshot_stays(workload, sandboxes):
    sandbox = workload.sandbox
    workload.fill(4)
    sandbox.pause()
    sandbox.resume()
    found = sandbox.record
    pager = pagers.adopt(found.pager_pid, found.pager_start_time, sandbox.paths.run)
    worker = pager.stats().worker
    process.kill_and_wait(pager.pid, pager.start_time, signal.SIGKILL, Deadline.after(120))
    os.kill(worker, signal.SIGKILL)
    pager.detach()
    (listed,) = [one for one in sandboxes.list() if one.id == sandbox.id]
    assert listed.state is State.ERROR
    sandbox.resume(discard=True)
    workload.check()
