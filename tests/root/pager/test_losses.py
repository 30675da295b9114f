"""A worker, a keeper, a VMM or the starter is lost: the guest goes on right, stops, or is ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pager_guest import Guest, make_snapshot, place, random_table, stands_still, until, was_killed
from wrennd.core.deadline import Deadline
from wrennd.core.errors import VmmFailed
from wrennd.host import pagers
from wrennd.linux import process
from wrennd.pager.keeper import GONE, MAX_RESTARTS

PAGES = 40_000


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    directory = tmp_path_factory.mktemp("snapshot")
    return make_snapshot(directory, random_table(PAGES, builds=3, seed=11))


@pytest.fixture
def served(program, run_dir, snapshot):
    """A pager and its guest; how it ends is each test's own."""
    with (
        pagers.serve(snapshot.source(), place(run_dir, window_pages=1)) as pager,
        Guest(program, run_dir, snapshot.image, [PAGES]) as guest,
    ):
        assert guest.hear() == "greeted"
        pager.watch(guest.pidfd)
        yield pager, guest


def kill_worker(pager):
    """In the midst of its work: after it has answered some more."""
    before = pager.stats()
    until(lambda: pager.stats().faults_answered > before.faults_answered + 50, "work")
    os.kill(pager.stats().worker, signal.SIGKILL)
    until(lambda: pager.stats().restarts > before.restarts, "another worker")


def has_ended(pager):
    return pager.process.wait(Deadline.after(60))


def test_a_lost_worker_is_replaced_and_the_guest_goes_on_right(served):
    pager, guest = served
    guest.say("stress 4 60000 9 0")
    for _ in range(MAX_RESTARTS):
        kill_worker(pager)
    assert guest.hear() == "ok"
    assert guest.ask("check") == "ok"
    assert pager.stats().restarts == MAX_RESTARTS


def test_a_worker_that_is_lost_again_and_again_ends_the_vmm(served):
    pager, guest = served
    guest.say("stress 4 60000 9 0")
    for _ in range(MAX_RESTARTS):
        kill_worker(pager)
    os.kill(pager.stats().worker, signal.SIGKILL)
    assert was_killed(guest)
    assert has_ended(pager) != GONE
    assert "the worker was lost (signal 9), as 3 before it" in pager.describe_end()


def test_a_replaced_worker_answers_what_the_lost_one_had_read(served):
    """Stopped between reading faults and answering them: nobody delivers those again."""
    pager, guest = served
    worker = pager.stats().worker
    os.kill(worker, signal.SIGSTOP)
    assert guest.ask("start 100 1") == "ok"
    until(lambda: stands_still(guest), "a fault")
    os.kill(worker, signal.SIGKILL)
    assert guest.ask("join") == "ok"
    assert pager.stats().restarts == 1


def test_a_stuck_worker_is_replaced(program, run_dir, snapshot):
    """Stopped where it has read a fault and not answered it, and none of us ends it."""
    with (
        pagers.serve(
            snapshot.source(), place(run_dir, window_pages=1, stalled_after_s=0.5)
        ) as pager,
        Guest(program, run_dir, snapshot.image, [PAGES]) as guest,
    ):
        assert guest.hear() == "greeted"
        guest.say("stress 4 60000 9 0")
        stop_with_a_fault(pager)
        assert guest.hear() == "ok"
        assert pager.stats().restarts >= 1
        assert "got nothing done" in pager.describe_end()


def stop_with_a_fault(pager):
    """Stop the worker in the middle of answering: it may take some tries."""

    def is_stopped_there():
        worker = pager.stats().worker
        os.kill(worker, signal.SIGSTOP)
        until(lambda: state_of(worker) == "T", "its stop")
        stats = pager.stats()
        if stats.faults_read > stats.faults_answered:
            return True
        os.kill(worker, signal.SIGCONT)
        return False

    until(is_stopped_there, "a stop within an answer")


def state_of(pid):
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat[stat.rindex(")") + 2]


@pytest.mark.parametrize("has_balloon", [True, False])
def test_with_a_balloon_a_lost_worker_ends_the_vmm(program, run_dir, snapshot, has_balloon):
    """Also when we were told of none, and a removal came all the same."""
    with (
        pagers.serve(snapshot.source(), place(run_dir, has_balloon=has_balloon)) as pager,
        Guest(program, run_dir, snapshot.image, [PAGES]) as guest,
    ):
        assert guest.hear() == "greeted"
        if not has_balloon:
            assert guest.ask("remove 0 1") == "ok"
        os.kill(pager.stats().worker, signal.SIGKILL)
        assert was_killed(guest)
        assert has_ended(pager) != GONE
        assert "the guest has a balloon" in pager.describe_end()


def test_without_a_keeper_the_worker_serves_on_and_nobody_finds_it(served):
    pager, guest = served
    os.kill(pager.pid, signal.SIGKILL)
    assert has_ended(pager) == -signal.SIGKILL
    assert guest.ask("check") == "ok"
    with pytest.raises(ProcessLookupError):
        pagers.adopt(pager.pid, pager.start_time, pager.run_dir)
    with pytest.raises(VmmFailed, match="exit code -9"):
        pager.stats()


def test_without_both_the_guest_stands_still(served):
    """It must not go on with a page of zeros."""
    pager, guest = served
    worker = pager.stats().worker
    assert guest.ask("read 0 10") == "ok"
    with Killed(pager.pid), Killed(worker):
        pass
    assert guest.ask("start 2000 1") == "ok"
    until(lambda: stands_still(guest), "a fault")
    guest.process.kill()
    assert was_killed(guest)


class Killed:
    """Kills on entry, and waits for the end at exit: the kernel lets go of nothing before."""

    def __init__(self, pid):
        self.pidfd = os.pidfd_open(pid)

    def __enter__(self):
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def __exit__(self, *_error):
        import select

        assert select.select([self.pidfd], [], [], 60)[0]
        os.close(self.pidfd)


def test_the_pager_ends_with_its_vmm(served):
    pager, guest = served
    assert guest.ask("read 0 10") == "ok"
    guest.process.kill()
    assert has_ended(pager) == GONE


def test_the_pager_ends_when_the_vmm_dies_in_a_fault(served):
    pager, guest = served
    guest.say("stress 4 1000000 9 10")
    until(lambda: pager.stats().faults_answered > 500, "faults")
    guest.process.kill()
    assert has_ended(pager) == GONE


def test_the_pager_ends_with_a_vmm_that_never_connected(run_dir, snapshot):
    with pagers.serve(snapshot.source(), place(run_dir)) as pager:
        with process.spawn(["sleep", "1000"]) as vmm:
            pager.watch(vmm.pidfd)
        assert has_ended(pager) == GONE


def test_ending_a_pager_ends_its_vmm_first(served):
    pager, guest = served
    assert guest.ask("read 0 10") == "ok"
    pager.close()
    assert was_killed(guest)
    assert list(pager.run_dir.iterdir()) == []
    pager.close()


def test_a_stuck_worker_does_not_keep_the_pager_from_ending(served):
    pager, _guest = served
    os.kill(pager.stats().worker, signal.SIGSTOP)
    pager.close()
    assert list(pager.run_dir.iterdir()) == []


STARTER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from pager_guest import Source, place
from contextlib import ExitStack
from wrennd.core.deadline import Deadline
from wrennd.host import pagers
header, run_dir, dies, *memfiles = sys.argv[2:]
source = Source(header=Path(header).read_bytes(), memfiles=tuple(map(Path, memfiles)))
held = ExitStack()
pager = pagers.start(held, source, place(Path(run_dir), dies_with_parent=dies == "dies"))
pager.wait_ready(Deadline.after(60))
print(pager.pid, pager.start_time, flush=True)
sys.stdin.read()
held.pop_all()
pager.detach()
"""


@pytest.fixture
def start_elsewhere(run_dir, snapshot, tmp_path):
    """A function that starts a pager from another process: (process, pid, start time)."""
    (tmp_path / "header").write_bytes(snapshot.header.encode())
    tests = Path(__file__).parents[2]
    started = []

    def start(dies):
        words = [tests, tmp_path / "header", run_dir, "dies" if dies else "lasts"]
        child = subprocess.Popen(
            [sys.executable, "-c", STARTER, *words, *snapshot.memfiles],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        pid, start_time = (int(word) for word in child.stdout.readline().split())
        started.append((child, pid, start_time))
        return started[-1]

    yield start
    for child, pid, start_time in started:
        child.kill()
        child.communicate()
        process.kill_and_wait(pid, start_time, signal.SIGKILL, Deadline.after(60))


def test_a_pager_outlives_its_starter_and_is_found_again(
    program, run_dir, snapshot, start_elsewhere
):
    starter, pid, start_time = start_elsewhere(dies=False)
    with Guest(program, run_dir, snapshot.image, [PAGES]) as guest:
        assert guest.hear() == "greeted"
        assert starter.communicate()[0] == ""
        assert starter.returncode == 0
        assert guest.ask("read 0 1000") == "ok"
        pager = pagers.adopt(pid, start_time, run_dir)
        assert pager.stats().state == "serving"
        pager.detach()
        with pytest.raises(ProcessLookupError):
            pagers.adopt(pid, start_time + 1, run_dir)
        pager = pagers.adopt(pid, start_time, run_dir)
        assert guest.ask("read 1000 1000") == "ok"
        pager.close()
        assert was_killed(guest)
        assert list(run_dir.iterdir()) == []


def test_a_pager_ends_with_its_starter_if_asked_to(start_elsewhere):
    starter, pid, start_time = start_elsewhere(dies=True)
    starter.kill()
    until(lambda: not process.is_alive(pid, start_time), "the end of the pager")


def test_a_socket_of_the_vmms_is_not_taken_for_the_pagers(served):
    """The run directory is the VMM's: it can put anything there."""
    import socket

    pager, _guest = served
    path = pager.run_dir / pagers.CONTROL_SOCKET
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as its:
        its.bind(os.fspath(path))
        its.listen()
        with pytest.raises(ProcessLookupError, match="is not pager"):
            pagers.adopt(pager.pid, pager.start_time, pager.run_dir)
