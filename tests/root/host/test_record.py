"""Records and their reclaiming, with real namespaces, cgroups and processes that are killed."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wrennd.core.deadline import Deadline
from wrennd.core.errors import NotFound, WrongState
from wrennd.core.ids import new_sandbox_id
from wrennd.core.states import State
from wrennd.host import record
from wrennd.host.reclaim import reclaim, reclaim_one
from wrennd.host.record import Owner, Record
from wrennd.host.unmake import group_name
from wrennd.linux import netns, process
from wrennd.linux.cgroup import Hierarchy
from wrennd.network.slot import Network
from wrennd.storage.layout import RUN_DIR, Layout


@pytest.fixture
def layout(tmp_path, leak_check):
    made = Layout.prepare(tmp_path / "data")
    leak_check.watch(made.installation, tmp_path)
    return made


@pytest.fixture
def network(layout):
    return Network(installation=layout.installation, run_root=RUN_DIR)


def new_record(**changes):
    made = Record(
        id=new_sandbox_id(),
        owner=Owner.PROCESS,
        state=State.STARTING,
        template="busybox",
        image_digest="0" * 32,
        kernel_digest="1" * 32,
        vmm="qemu-emulated",
        tier="emulated",
        overlay="copy",
        vcpus=1,
        mem_mib=256,
        dns=("192.0.2.53",),
        env={"A": "b"},
        boot_id=record.host_boot_id(),
    )
    return dataclasses.replace(made, **changes)


def test_a_record_survives_its_encoding():
    made = new_record()
    assert Record.decode(made.encode()) == made


BAD = [b"", b"[]", b"{}", b'{"version": 2}', b'{"version": 3}', b"\xff", b'{"version": 1']


@pytest.mark.parametrize("raw", [*BAD, b'{"version": 2, "owner": "nobody"}'])
def test_what_is_no_record_is_refused(raw):
    with pytest.raises(ValueError, match=r".+"):
        Record.decode(raw)


def test_directories_last_as_long_as_the_block(layout):
    with record.opened(layout, new_record()) as journal:
        assert journal.paths.record.exists()
        assert journal.paths.run.is_dir()
        journal.update(slot=7)
        assert Record.decode(journal.paths.record.read_bytes()).slot == 7
        (journal.paths.run / "api.sock").touch()
    assert not journal.paths.data.exists()
    assert not layout.run_dir.exists()


def test_an_id_is_taken_once(layout):
    made = new_record()
    with record.opened(layout, made):
        with pytest.raises(FileExistsError), record.opened(layout, made):
            raise AssertionError("two owners")
        assert layout.sandbox(made.id).record.exists(), "the first owner's record is untouched"


def test_what_a_living_process_owns_is_not_reclaimed(layout, network):
    with record.opened(layout, new_record()) as journal:
        assert reclaim(layout, network) == []
        assert not reclaim_one(layout, network, journal.record.id)
        assert journal.paths.record.exists()


OWNER = """
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from ipaddress import IPv4Address
from wrennd.core.deadline import Deadline
from wrennd.core.model import SandboxSpec
from wrennd.host import group, record
from wrennd.host.record import Record
from wrennd.linux import process
from wrennd.network.slot import Network, open_slot
from wrennd.storage.layout import RUN_DIR, Layout

layout = Layout.prepare(Path(sys.argv[1]))
made = Record.decode(sys.stdin.buffer.read())
network = Network(installation=layout.installation, run_root=RUN_DIR)
with ExitStack() as held:
    journal = held.enter_context(record.opened(layout, made))
    slot = held.enter_context(
        open_slot(network, made.id, dns=[IPv4Address("192.0.2.53")], deadline=Deadline.after(30))
    )
    made_group = held.enter_context(group.cgroup_of(layout, made.id, {}))
    child = held.enter_context(process.spawn(["sleep", "1000"]))
    made_group.procs.write_text(str(child.pid))
    journal.update(slot=slot.index, vmm_pid=child.pid, vmm_start_time=child.start_time)
    print(child.pid, flush=True)
    signal.pause()
"""


@pytest.fixture
def killed_owner(layout):
    """A sandbox whose owner was killed: its id, and the pid of what it had started."""
    made = new_record()
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(layout.data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        owner.stdin.write(made.encode())
        owner.stdin.close()
        pid = int(owner.stdout.readline())
        owner.send_signal(signal.SIGKILL)
        owner.wait(20)
    return made.id, pid


def test_everything_of_a_killed_owner_is_unmade(layout, network, killed_owner):
    sandbox_id, pid = killed_owner
    hierarchy = Hierarchy.find()
    assert hierarchy.group(group_name(layout), sandbox_id).path.exists()
    assert any(sandbox_id in name for name in netns.names())
    assert reclaim(layout, network) == [sandbox_id]
    assert not Path(f"/proc/{pid}").exists() or _is_zombie(pid)
    assert not hierarchy.group(group_name(layout)).path.exists()
    assert not any(sandbox_id in name for name in netns.names())
    assert list(layout.sandboxes.glob("*/")) == []
    assert reclaim(layout, network) == []


def _is_zombie(pid):
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


def test_without_its_record_a_sandbox_is_still_found_by_what_the_kernel_holds(
    layout, network, killed_owner
):
    sandbox_id, _ = killed_owner
    layout.sandbox(sandbox_id).record.unlink()
    layout.sandbox(sandbox_id).owner_lock.unlink()
    layout.sandbox(sandbox_id).data.rmdir()
    assert reclaim(layout, network) == [sandbox_id]


MAKER = """
import sys
from pathlib import Path
from wrennd.core.ids import new_sandbox_id
from wrennd.core.states import State
from wrennd.host import group, record
from wrennd.host.record import Owner, Record
from wrennd.storage.layout import Layout

layout = Layout.prepare(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    made = Record(id=new_sandbox_id(), owner=Owner.PROCESS, state=State.STARTING, template="",
                  image_digest="", kernel_digest="", vmm="", tier="", overlay="", vcpus=1,
                  mem_mib=128)
    with record.opened(layout, made) as journal, group.cgroup_of(layout, made.id, {}):
        assert journal.paths.record.exists()
"""


def test_reclaiming_beside_owners_that_come_and_go_disturbs_nobody(layout, network):
    """Two makers and a reclaimer at full speed: nobody fails, nothing living is reclaimed."""
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKER, str(layout.data_dir), "80"])
        for _ in range(2)
    ]
    reclaimed = []
    while any(maker.poll() is None for maker in makers):
        reclaimed += reclaim(layout, network)
    assert [maker.wait(60) for maker in makers] == [0, 0]
    assert reclaimed == []


def test_what_a_vmm_writes_into_its_run_directory_is_bounded(layout):
    with record.opened(layout, new_record()) as journal:
        with pytest.raises(OSError, match="No space left"):
            (journal.paths.run / "vmm.log").write_bytes(bytes(record.RUN_BYTES + 4096))
        (journal.paths.run / "vmm.log").unlink()

        def touch_too_many():
            for number in range(record.RUN_FILES + 1):
                (journal.paths.run / str(number)).touch()

        with pytest.raises(OSError, match="No space left"):
            touch_too_many()


def test_one_that_can_not_be_reclaimed_does_not_hinder_the_others(layout, network, killed_owner):
    sandbox_id, _ = killed_owner
    stuck = "a" * 20
    (layout.sandboxes / stuck).write_text("a file where a directory should be")
    try:
        assert sandbox_id in reclaim(layout, network)
    finally:
        (layout.sandboxes / stuck).unlink()


VERSION_1 = {
    "id": "a" * 20,
    "image_digest": "0",
    "kernel_digest": "1",
    "vmm": "qemu-emulated",
    "tier": "emulated",
    "overlay": "copy",
    "slot": 3,
    "vmm_pid": 1 << 22,
    "vmm_start_time": 1,
    "version": 1,
}


def test_a_record_of_version_1_belonged_to_a_process_and_is_reclaimed(layout, network):
    paths = layout.sandbox(VERSION_1["id"])
    paths.data.mkdir()
    paths.owner_lock.touch()
    paths.record.write_text(json.dumps(VERSION_1))
    assert record.load(paths).owner is Owner.PROCESS
    assert reclaim(layout, network) == [VERSION_1["id"]]
    assert not paths.data.exists()


@pytest.fixture
def kept(layout):
    """Makes a sandbox that the installation keeps, with its disk, as a dead command left it."""

    def make(**changes):
        made = new_record(owner=Owner.INSTALLATION, **changes)
        paths = layout.sandbox(made.id)
        paths.data.mkdir()
        paths.owner_lock.touch()
        paths.disk.write_text("precious")
        paths.record.write_bytes(made.encode())
        return paths

    return make


@pytest.fixture
def living():
    """A process that stands for a VMM."""
    with process.spawn(["sleep", "1000"]) as child:
        yield {"vmm_pid": child.pid, "vmm_start_time": child.start_time}


def test_what_runs_or_is_paused_is_left_alone(layout, network, kept, living):
    kept(state=State.RUNNING, **living)
    kept(state=State.PAUSED, generation=1)
    kept(state=State.ERROR, error="why")

    def content():
        return {path: path.read_bytes() for path in layout.sandboxes.glob("*/*")}

    before = content()
    assert reclaim(layout, network) == []
    assert content() == before


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"vmm_pid": 1 << 22, "vmm_start_time": 1}, "its VMM ended"),
        ({"boot_id": "of-before"}, "the host was restarted"),
    ],
)
def test_one_whose_vmm_is_gone_is_in_error_and_keeps_its_disk(
    layout, network, kept, living, changes, why
):
    paths = kept(state=State.RUNNING, **{**living, **changes})
    assert reclaim(layout, network) == [paths.data.name]
    found = record.load(paths)
    assert (found.state, found.vmm_pid, found.address) == (State.ERROR, None, "")
    assert why in found.error
    assert paths.disk.read_text() == "precious"
    assert reclaim(layout, network) == []


def test_the_end_of_its_console_is_kept_too(layout, network, kept):
    paths = kept(state=State.RUNNING, vmm_pid=1 << 22, vmm_start_time=1)
    record.make_run_dir(layout, paths)
    (paths.run / "console.log").write_text("Kernel panic\n")
    (paths.run / "vmm.log").write_text("last words\n")
    assert reclaim(layout, network) == [paths.data.name]
    assert paths.last_console.read_text() == "Kernel panic\n"
    assert "last words" in record.load(paths).error


@pytest.mark.parametrize("state", [State.STARTING, State.DESTROYING])
def test_what_was_being_made_or_destroyed_is_unmade(layout, network, kept, state):
    paths = kept(state=state)
    assert reclaim(layout, network) == [paths.data.name]
    assert not paths.data.exists()


@pytest.mark.parametrize("raw", [b"{", b'{"version": 3}'])
def test_one_whose_record_can_not_be_read_is_left_for_somebody_who_can(layout, network, kept, raw):
    paths = kept(state=State.RUNNING)
    paths.record.write_bytes(raw)
    assert reclaim(layout, network) == []
    assert paths.disk.exists()
    with pytest.raises(WrongState, match=r"can't be read"):
        record.load(paths)


def test_one_operation_at_a_time(layout, kept):
    paths = kept(state=State.PAUSED)
    name = paths.data.name
    with record.operation(layout, name, Deadline.after(0)) as journal:
        assert journal.record.state is State.PAUSED
        with (
            pytest.raises(WrongState, match="in the hands of another command"),
            record.operation(layout, name, Deadline.after(0)),
        ):
            raise AssertionError("two at once")
    with record.operation(layout, name, Deadline.after(0)):
        pass


def test_who_waited_for_a_sandbox_that_went_is_told_so(layout, kept):
    paths = kept(state=State.PAUSED)
    lock = paths.owner_lock.open()
    record.remove(layout, paths)
    assert not record._is_still(paths.owner_lock, lock.fileno())
    lock.close()
    with (
        pytest.raises(NotFound, match=paths.data.name),
        record.operation(layout, paths.data.name, Deadline.after(0)),
    ):
        raise AssertionError("it is gone")


def test_a_sandbox_that_belongs_to_a_living_process_is_not_ours_to_change(layout):
    with (
        record.opened(layout, new_record()) as journal,
        pytest.raises(WrongState, match="belongs to a wrenn run"),
        record.operation(layout, journal.record.id, Deadline.after(0)),
    ):
        raise AssertionError("two owners")
