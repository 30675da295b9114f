"""What the kernel says of both processes of a running VMM: uid, capabilities, filter, root."""

import os
import sys
from pathlib import Path

import pytest

from wrennd.linux.cgroup import Hierarchy


@pytest.fixture
def processes(machine):
    """The VMM and, by its side, QEMU: everything that runs with the slot's uid."""
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


def test_there_are_two_of_them(processes, machine):
    assert len(processes) == 2
    assert "qemu-system-x86" in processes


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


def test_qemu_has_filters_of_its_own_besides_ours(processes, machine):
    filters = {name: int(status_of(e)["Seccomp_filters"]) for name, e in processes.items()}
    assert filters.pop("qemu-system-x86") > max(filters.values())


def test_their_root_holds_only_what_they_need(processes, machine):
    interpreter = os.path.realpath(sys.base_prefix).split("/")[1]
    for name, entry in processes.items():
        root = entry / "root"
        needed = {"app", "boot", "dev", "disk", "etc", "lib", "lib64", "run", "tmp", "usr"}
        assert {path.name for path in root.iterdir()} == needed | {interpreter}, name
        assert {path.name for path in (root / "boot").iterdir()} == {"vmlinux", "initrd.img"}
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
    assert {int(entry.name) for entry in processes.values()} == set(group.pids())


def test_they_are_in_sessions_of_their_own_and_read_nothing(processes, machine):
    for name, entry in processes.items():
        assert os.getsid(int(entry.name)) == int(entry.name), name
        assert os.readlink(entry / "fd/0") == "/dev/null", name  # noqa: PTH115
