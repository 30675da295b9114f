"""Who a guest is: at its boot, and when it is told that it was restored.

No snapshot is taken here: the guest is frozen and told that it comes back as another sandbox, once
for each image. One guest of each serves all tests, which run in their order.
"""

import uuid

import pytest

from wrennd.core.config import Config
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxSpec
from wrennd.core.sandboxes import Exit, Output
from wrennd.core.timings import Timings
from wrennd.host.local import LocalSandboxes
from wrennd.host.machine import Machine

FILES = {
    "hostname": "/proc/sys/kernel/hostname",
    "hostname file": "/etc/hostname",
    "machine-id": "/etc/machine-id",
    "boot_id": "/proc/sys/kernel/random/boot_id",
    "sandbox-id": "/run/wrenn/sandbox-id",
}


@pytest.fixture(scope="module", params=["base", "busybox"])
def shared_world(request, layout):
    spec = SandboxSpec(id=new_sandbox_id(), image=request.param, mem_mib=256)
    parts = LocalSandboxes(Config(data_dir=layout.data_dir), print).parts(spec)
    machine = Machine.boot(spec, parts, Timings())
    try:
        yield machine
    finally:
        machine.close()


def sh(machine, script):
    with machine.envd.start(Command(argv=("sh", "-c", script), user="root")) as started:
        *output, end = started.events()
    text = b"".join(one.data for one in output if isinstance(one, Output)).decode()
    assert end == Exit(0), text
    return text


def identity(machine):
    return {name: sh(machine, f"cat {path}").strip() for name, path in FILES.items()} | {
        "hosts": sh(machine, "cat /etc/hosts"),
        "variable": sh(machine, "echo $WRENN_SANDBOX_ID").strip(),
    }


def check_identity(found, sandbox_id):
    for name in ("hostname", "hostname file", "sandbox-id", "variable"):
        assert found[name] == sandbox_id, name
    assert found["hosts"].count(f"127.0.1.1 {sandbox_id}\n") == 1
    assert int(found["machine-id"], 16) > 0
    assert uuid.UUID(found["boot_id"]).version == 4


def test_a_guest_comes_back_as_another_sandbox(shared_world):
    machine, other = shared_world, new_sandbox_id()
    machine.envd.init(token="one", sandbox_id=machine.spec.id)
    before = identity(machine)
    check_identity(before, machine.spec.id)
    sh(
        machine,
        "mkdir -p /etc/wrenn/resume.d; cat > /etc/wrenn/resume.d/10-look <<'END'\n"
        "#!/bin/sh\n"
        "echo $WRENN_FORMER_SANDBOX_ID $WRENN_SANDBOX_ID $(cat /proc/sys/kernel/hostname) > /seen\n"
        "date +%s.%N >> /seen\n"
        "END\n"
        "chmod 755 /etc/wrenn/resume.d/10-look",
    )
    with machine.envd.start(Command(argv=("cat",), user="user", has_stdin=True)) as cat:
        assert machine.envd.freeze(30.0)
        told = machine.envd.init(token="two", sandbox_id=other, restored=True)
        assert told.warnings == ()
        assert told.clock_error_s is not None
    (hook,) = machine.envd.unfreeze()
    assert (hook.name, hook.status) == ("10-look", "exit status 0")
    after = identity(machine)
    check_identity(after, other)
    assert not set(before.values()) & set(after.values())
    assert sh(machine, "head -n 1 /seen").split() == [machine.spec.id, other, other]
    assert f"{machine.spec.id}\n" not in after["hosts"]
    # The process of before lives on, though nobody is connected to it any more.
    sh(machine, f"kill {cat.pid}")


def test_the_clock_is_right_behind_a_restore(shared_world):
    machine = shared_world
    sh(machine, "date -s '2001-01-01 00:00:00' || date -s 2001.01.01-00:00:00")
    assert machine.envd.freeze(30.0)
    told = machine.envd.init(token="three", restored=True, sandbox_id=new_sandbox_id())
    machine.envd.unfreeze()
    assert told.clock_error_s is not None
    assert told.clock_error_s < 0.1


def test_two_seeds_make_two_streams(shared_world):
    """What the generator gives can't be foreseen here; that a seed is credited and used can."""
    machine = shared_world
    found = set()
    for number in range(3):
        assert machine.envd.freeze(30.0)
        machine.envd.init(token=f"r{number}", restored=True, sandbox_id=new_sandbox_id())
        machine.envd.unfreeze()
        found.add(sh(machine, "head -c 16 /dev/urandom | od -An -tx1"))
        found.add(sh(machine, "cat /proc/sys/kernel/random/uuid"))
    assert len(found) == 6
