"""Records and their reclaiming, with real namespaces, cgroups and processes that are killed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wrennd.core.ids import new_sandbox_id
from wrennd.host import record
from wrennd.host.reclaim import group_name, reclaim, reclaim_one
from wrennd.host.record import Record
from wrennd.linux import netns
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


def new_record():
    return Record(
        id=new_sandbox_id(),
        image_digest="0" * 32,
        kernel_digest="1" * 32,
        vmm="qemu-emulated",
        tier="emulated",
        overlay="copy",
    )


def test_a_record_survives_its_encoding():
    made = new_record()
    assert Record.decode(made.encode()) == made


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"version": 2}', b"\xff", b'{"version": 1'])
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
from wrennd.host import machine, record
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
    group = held.enter_context(machine.cgroup_of(layout, made.id, {}))
    child = held.enter_context(process.spawn(["sleep", "1000"]))
    group.procs.write_text(str(child.pid))
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
from wrennd.host import machine, record
from wrennd.host.record import Record
from wrennd.storage.layout import Layout

layout = Layout.prepare(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    made = Record(id=new_sandbox_id(), image_digest="", kernel_digest="", vmm="", tier="",
                  overlay="")
    with record.opened(layout, made) as journal, machine.cgroup_of(layout, made.id, {}):
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
