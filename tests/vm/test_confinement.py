"""What the kernel says of a running VMM's processes: uid, capabilities, filter, root."""

import os
import sys
from pathlib import Path

import pytest

from wrennd.linux.cgroup import Hierarchy


@pytest.fixture
def processes(machine):
    """The VMM and, where it is our server, QEMU by its side."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = status_of(entry)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if status["Pid"] == str(machine.vm.pid) or status["PPid"] == str(machine.vm.pid):
            found[status["Name"]] = entry
    return found


def status_of(entry):
    lines = (entry / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.fixture
def guarded(parts):
    """The process that runs the guest."""
    return "firecracker" if parts.program.is_firecracker else "qemu-system-x86"


def test_there_are_two_of_them_or_firecracker(processes, machine, guarded):
    assert len(processes) == (1 if guarded == "firecracker" else 2)
    assert guarded in processes


def test_uid_capabilities_and_filter(processes, machine):
    for name, entry in processes.items():
        status = status_of(entry)
        uids = set(status["Uid"].split()) | set(status["Gid"].split())
        assert len(uids) == 1, name
        assert int(uids.pop()) >= 1_879_100_000, name
        assert status["Groups"] == "", name
        for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
            assert int(status[f"Cap{kind}"], 16) == 0, (name, kind)
        assert status["NoNewPrivs"] == "1", name
        assert status["Seccomp"] == "2", name


def test_the_one_that_runs_the_guest_has_filters_of_its_own_besides_ours(
    processes, machine, guarded
):
    filters = {name: int(status_of(e)["Seccomp_filters"]) for name, e in processes.items()}
    assert filters.pop(guarded) > max(filters.values(), default=1)


def test_their_root_holds_only_what_they_need(processes, machine, guarded):
    interpreter = os.path.realpath(sys.base_prefix).split("/")[1]
    own = (
        {"firecracker"} if guarded == "firecracker" else {"app", "etc", "proc", "usr", interpreter}
    )
    for name, entry in processes.items():
        root = entry / "root"
        needed = {"boot", "dev", "disk", "lib", "lib64", "run", "tmp"}
        assert {path.name for path in root.iterdir()} == needed | own, name
        assert {path.name for path in (root / "boot").iterdir()} == {"vmlinux", "initrd.img"}
        if "etc" in own:
            assert {path.name for path in (root / "etc").iterdir()} == {"ld.so.cache"}
        assert {path.name for path in (root / "run").iterdir()} == {"vmm"}
        assert os.readlink(root / "tmp/fc-vm/rootfs.ext4") == "/disk/rootfs.ext4"  # noqa: PTH115


def test_no_file_of_theirs_grows_past_the_disk(processes, machine):
    for name, entry in processes.items():
        line = next(x for x in (entry / "limits").read_text().splitlines() if "file size" in x)
        assert line.split()[3:5] == [str(4 << 30)] * 2, name


def test_they_share_nothing_of_the_hosts_namespaces(processes, machine):
    for name, entry in processes.items():
        for kind in ("mnt", "net", "ipc", "uts"):
            theirs = (entry / "ns" / kind).stat().st_ino
            assert theirs != Path(f"/proc/self/ns/{kind}").stat().st_ino, (name, kind)


def test_they_are_in_the_sandboxs_cgroup(processes, machine, layout):
    hierarchy = Hierarchy.find()
    group = hierarchy.group(f"wrenn-{layout.installation}", machine.spec.id)
    # With KVM a thread of the kernel's is in it too, which has no command line.
    own = {pid for pid in group.pids() if Path(f"/proc/{pid}/cmdline").read_bytes()}
    assert {int(entry.name) for entry in processes.values()} == own


def test_they_are_in_sessions_of_their_own_and_read_nothing(processes, machine):
    for name, entry in processes.items():
        assert os.getsid(int(entry.name)) == int(entry.name), name
        assert os.readlink(entry / "fd/0") == "/dev/null", name  # noqa: PTH115
