"""Programs in namespaces of their own: what they are apart from, and that nothing of them stays."""

import socket
import sys
from pathlib import Path

import pytest

import own_namespaces

# Serves one port for ever, and says which process it has started in a session of its own.
PROGRAM = """
import os, signal, socket
orphan = os.fork()
if not orphan:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.pause()
os.waitpid(orphan, 0)
listener = socket.create_server(("127.0.0.1", PORT))
print("ready", flush=True)
while True:
    listener.accept()[0].sendall(b"here")
"""


@pytest.fixture
def port():
    """One of the host's loopback that is taken, by who never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def started(port):
    argv = [sys.executable, "-I", "-S", "-c", PROGRAM.replace("PORT", str(port))]
    return own_namespaces.started(argv)


def test_its_loopback_is_another_one(port):
    with started(port) as program:
        assert program.first_line == "ready\n"
        with own_namespaces.entered(program.network):
            inside = socket.create_connection(("127.0.0.1", port), timeout=20)
            assert [name for _, name in socket.if_nameindex()] == ["lo"]
        with inside:
            assert inside.recv(4) == b"here"
        for name in ("net", "uts", "ipc"):
            own, ours = Path(f"/proc/{program.pid}/ns/{name}"), Path(f"/proc/self/ns/{name}")
            assert own.readlink() != ours.readlink()


def test_nothing_of_it_is_left_at_the_end(port):
    with started(port) as program:
        (orphan,) = set(own_namespaces.inhabitants(program.network)) - {program.pid}
        assert Path(f"/proc/{orphan}").exists()
        network = Path(f"/proc/{orphan}/ns/net").stat()
    assert not own_namespaces.is_in(orphan, network)
    assert not own_namespaces.is_in(program.pid, network)


def test_a_program_that_does_not_start_is_no_wait():
    with pytest.raises(AssertionError, match="ended before"), own_namespaces.started(["false"]):
        pass


def test_who_enters_comes_back(port):
    before = network_of_this_thread()
    with started(port) as program:
        with own_namespaces.entered(program.network):
            assert network_of_this_thread() != before
        assert network_of_this_thread() == before


def network_of_this_thread():
    return Path("/proc/thread-self/ns/net").readlink()
