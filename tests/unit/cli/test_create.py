"""`wrenn create --count`: each sandbox is told of or removed, also when a signal comes between."""

import signal
import threading

import pytest

from wrennd.cli import create
from wrennd.core.errors import NoCapacity, NotFound
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxRequest


class Interrupted(BaseException):
    pass


class Server:
    """Chooses ids itself. After `quick` sandboxes a signal comes, while the others are made."""

    def __init__(self, quick, *, full_after=100):
        self.quick, self.full_after = quick, full_after
        self.there, self.made = set(), []
        self.lock = threading.Lock()
        self.told = threading.Semaphore(0)
        self.is_over = threading.Event()

    def create(self, wanted, timings):
        with self.lock:
            number = len(self.made)
            if number >= self.full_after:
                raise NoCapacity("there is no room")
            self.made.append(new_sandbox_id())
        if number >= self.quick:
            if number == self.quick:
                for _ in range(self.quick):
                    assert self.told.acquire(timeout=60)
                self.interrupt()
            assert self.is_over.wait(60)
        self.there.add(self.made[number])
        return self.made[number]

    def interrupt(self):
        """One that comes just as the main thread begins to wait does not wake it: again, then."""
        for _ in range(600):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
            if self.is_over.wait(0.1):
                return

    def kill(self, sandbox_id):
        if sandbox_id not in self.there:
            raise NotFound(f"there is no sandbox {sandbox_id}")
        self.there.remove(sandbox_id)


def requests(count):
    return [SandboxRequest(id=new_sandbox_id()) for _ in range(count)]


@pytest.fixture
def alarm():
    def ring(number, frame):
        if not server.is_over.is_set():
            server.is_over.set()  # what is being made is made to its end
            raise Interrupted

    server = Server(2)
    before = signal.signal(signal.SIGALRM, ring)
    yield server
    signal.signal(signal.SIGALRM, before)


def test_what_nobody_was_told_of_is_removed(alarm):
    told = set()

    def listen():
        for sandbox_id, _ in create._made(alarm, requests(12)):
            told.add(sandbox_id)
            alarm.told.release()

    with pytest.raises(Interrupted):
        listen()
    assert len(told) == 2
    assert alarm.there == told


def test_when_one_fails_the_others_are_made():
    server = Server(100, full_after=3)
    told = []

    def listen():
        for sandbox_id, _ in create._made(server, requests(5)):
            told.append(sandbox_id)

    with pytest.raises(NoCapacity):
        listen()
    assert set(told) == server.there
    assert len(told) == 3
