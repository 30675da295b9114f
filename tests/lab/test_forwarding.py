"""A host whose own firewall drops what it forwards: doctor says so, and what it advises works."""

import re
import shlex
import sys
from contextlib import ExitStack

import pytest

from wrennd.core.config import Config
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxRequest
from wrennd.core.sandboxes import Exit, Output
from wrennd.core.timings import Timings
from wrennd.host import doctor
from wrennd.host.doctor import Status
from wrennd.linux import process

HOST, GATEWAY, INTERNET = "198.51.100.2", "198.51.100.1", "203.0.113.10"
PAGE = "the internet says hello"
TIMEOUT_S = 60


def call(*words):
    return process.run(words, timeout_s=TIMEOUT_S).stdout


@pytest.fixture
def internet(leak_check, tmp_path):
    """A namespace with a web server, to which the lab's default route leads."""
    (tmp_path / "index.html").write_text(PAGE)
    with ExitStack() as held:
        call("ip", "netns", "add", "internet")
        held.callback(call, "ip", "netns", "del", "internet")
        call(*["ip", "link", "add", "wan0", "type", "veth", "peer", "eth0", "netns", "internet"])
        for words in (
            f"-n internet address add {GATEWAY}/24 dev eth0",
            f"-n internet address add {INTERNET}/32 dev lo",
            "-n internet link set eth0 up",
            "-n internet link set lo up",
            f"address add {HOST}/24 dev wan0",
            "link set wan0 up",
            f"route add default via {GATEWAY}",
        ):
            call("ip", *words.split())
        held.enter_context(serving(tmp_path))
        yield


def serving(directory):
    """A web server there; it listens before this returns."""
    script = (
        "import functools, http.server as h\n"
        f"handler = functools.partial(h.SimpleHTTPRequestHandler, directory={str(directory)!r})\n"
        f"server = h.ThreadingHTTPServer(({INTERNET!r}, 80), handler)\n"
        "print('ready', flush=True)\n"
        "server.serve_forever()\n"
    )
    inside = ["ip", "netns", "exec", "internet", sys.executable, "-I", "-c", script]
    server = process.spawn(inside, stdout=process.PIPE)
    assert server.stdout.readline() == b"ready\n"
    return server


@pytest.fixture
def dropping(leak_check):
    """As Docker sets it."""
    call("iptables", "--policy", "FORWARD", "DROP")
    yield
    call("iptables", "--policy", "FORWARD", "ACCEPT")
    call("iptables", "--flush", "FORWARD")


def forwarding_check(layout):
    (found,) = [
        check
        for check in doctor.examine(Config(data_dir=layout.data_dir, vmm="qemu-emulated"))
        if check.name == "forwarding"
    ]
    return found


def fetch(sandbox):
    """What a guest gets from the internet; "" when nothing comes."""
    script = f"timeout 8 wget -q -O - http://{INTERNET}/"
    with sandbox.start(Command(argv=("sh", "-c", script))) as running:
        events = list(running.events())
    assert isinstance(events[-1], Exit)
    return b"".join(event.data for event in events if isinstance(event, Output)).decode()


def test_the_advice_lets_guests_out_again(sandboxes, layout, internet, dropping):
    wanted = SandboxRequest(id=new_sandbox_id(), template="busybox", mem_mib=128)
    with sandboxes.temporary(wanted, Timings()) as sandbox:
        assert PAGE not in fetch(sandbox)
        said = forwarding_check(layout)
        assert (said.status, "policy drop" in said.found) == (Status.NOTE, True), said
        for command in re.findall(r"iptables -I FORWARD .*? -j ACCEPT", said.advice):
            call(*shlex.split(command))
        assert PAGE in fetch(sandbox)
