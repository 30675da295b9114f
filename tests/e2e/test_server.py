"""The server as a whole: `wrenn up`, a sandbox's life through its API, and what outlives it."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from leaks import LeakCheck
from real_server import serving
from wrenn_command import wrenn
from wrennd.core.errors import WrongState
from wrennd.core.model import Command
from wrennd.core.sandboxes import Exit, Output

SMALL = {"template": "busybox", "memory_mib": 128}
TEMPLATE = "server-test"


@pytest.fixture(scope="module")
def shared_world(layout, tmp_path_factory):
    check = LeakCheck()
    check.watch(layout.installation, layout.sandboxes)
    with serving(layout, tmp_path_factory.mktemp("server") / "log") as server:
        yield server
    check.finish()


@pytest.fixture
def client(shared_world):
    with contextlib.closing(shared_world.client()) as made:
        yield made


def test_a_sandbox_s_whole_life(client):
    box = client.create(**SMALL)
    assert (box.state, box.tier) == ("running", "emulated")
    assert client.exec(box.id, "echo", ["hello"]).stdout == "hello\n"
    client.write_file(box.id, "/root/kept", b"kept \0 bytes")
    with client.command(box.id, Command(argv=("sh", "-c", "cat; exit 3"), has_stdin=True)) as cat:
        cat.send_stdin(b"through\n")
        cat.close_stdin()
        events = list(cat.events())
    assert b"".join(one.data for one in events if isinstance(one, Output)) == b"through\n"
    assert events[-1] == Exit(3)
    assert client.pause(box.id).state == "paused"
    with pytest.raises(WrongState):
        client.exec(box.id, "true")
    assert client.resume(box.id).state == "running"
    assert client.read_file(box.id, "/root/kept") == b"kept \0 bytes"

    client.snapshot(box.id, TEMPLATE, pause=False)
    other = client.create(TEMPLATE)
    client.write_file(other.id, "/root/kept", b"changed")
    assert client.read_file(box.id, "/root/kept") == b"kept \0 bytes"
    phases = {phase.name for one in client.timings(box.id) for phase in one.phases}
    assert {"freeze", "vmm_load", "thaw"} <= phases
    client.delete_snapshot(TEMPLATE)
    for each in (box, other):
        client.destroy(each.id)
        assert client.get(each.id).state == "stopped"
    assert client.list() == ()


def test_a_sandbox_of_a_frozen_image_is_restored_unless_it_is_to_boot(client):
    for wish, phase in (({}, "vmm_load"), ({"cold": True}, "vmm_boot")):
        box = client.create("busybox", **wish)
        assert client.exec(box.id, "hostname").stdout == f"{box.id}\n"
        phases = {one.name for done in client.timings(box.id) for one in done.phases}
        assert phase in phases
        assert not phases >= {"vmm_load", "vmm_boot"}
        client.destroy(box.id)


def test_all_of_it_is_killed_and_nothing_is_lost(shared_world, client):
    running, paused = (client.create(**SMALL) for _ in range(2))
    client.write_file(running.id, "/root/kept", b"kept")
    client.start(running.id, "sleep", ["100000"], tag="sleeper")
    client.pause(paused.id)
    shared_world.kill("wrenn up", "wrennd.host.agent", "wrennd.control")
    shared_world.start()
    assert {box.id: box.state for box in client.list()} == {
        running.id: "running",
        paused.id: "paused",
    }
    assert client.read_file(running.id, "/root/kept") == b"kept"
    assert [process.tag for process in client.processes(running.id)] == ["sleeper"]
    assert client.resume(paused.id).state == "running"
    for box in (running, paused):
        client.destroy(box.id)


@pytest.mark.long
def test_twenty_at_once_and_all_are_found_again(shared_world, client):
    first = client.create(**SMALL)
    client.snapshot(first.id, TEMPLATE, pause=False)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: client.create(TEMPLATE), range(20)))
        names = list(pool.map(lambda box: client.exec(box.id, "hostname").stdout.strip(), made))
        assert names == [box.id for box in made]
        shared_world.kill("wrenn up", "wrennd.host.agent", "wrennd.control")
        shared_world.start()
        assert {box.id for box in client.list()} == {first.id, *names}
        assert all(box.state == "running" for box in client.list())
        again = pool.map(lambda box: client.exec(box.id, "hostname").stdout.strip(), made)
        assert list(again) == names
        list(pool.map(lambda box: client.destroy(box.id), (first, *made)))
    client.delete_snapshot(TEMPLATE)


def test_it_goes_on_with_what_commands_have_made(shared_world, client):
    data_dir = shared_world.layout.data_dir
    shared_world.stop()
    made = wrenn(data_dir, "create", "--template", "busybox", "--memory", "128")
    assert made.returncode == 0, made.stderr
    shared_world.start()
    (box,) = client.list()
    assert box.id == made.stdout.strip()
    assert client.exec(box.id, "hostname").stdout.strip() == box.id
    client.destroy(box.id)
    assert json.loads(wrenn(data_dir, "ls", "--json").stdout) == {"sandboxes": []}
