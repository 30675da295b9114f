from pathlib import Path

from wrennd.vmm import launch
from wrennd.vmm.launch import Cell
from wrennd.vmm.program import Tier, firecracker, qemu

CELL = Cell(
    id="a1",
    uid=1_879_100_007,
    run_dir=Path("/run/wrenn/x/a1"),
    kernel=Path("/data/vmlinux"),
    initrd=Path("/data/initrd.img"),
    disk=Path("/data/rootfs.ext4"),
    netns=Path("/run/netns/n"),
    cgroup_procs=None,
    dies_with_parent=False,
    max_file_bytes=4 << 30,
)


def test_only_its_own_files_are_writable():
    said = launch.describe(qemu(Tier.EMULATED), CELL)
    writable = [target for _, target, is_writable in said["binds"] if is_writable]
    assert writable == ["/run/vmm", "/disk/rootfs.ext4"]


def test_the_stable_path_is_a_link_to_the_disk():
    said = launch.describe(qemu(Tier.EMULATED), CELL)
    assert ["/disk/rootfs.ext4", "/tmp/fc-vm/rootfs.ext4"] in said["links"]


def test_firecracker_sees_nothing_of_the_host_but_itself():
    said = launch.describe(firecracker(Path("/data/vmm/firecracker")), CELL)
    assert {target for _, target, _ in said["binds"]} == {
        "/firecracker",
        "/run/vmm",
        "/boot/vmlinux",
        "/boot/initrd.img",
        "/disk/rootfs.ext4",
    }
    assert said["argv"] == [
        *("/firecracker", "--api-sock", "/run/vmm/api.sock", "--id", "a1"),
        *("--log-path", "/run/vmm/vmm.log"),
    ]


def test_no_path_of_the_host_is_in_the_arguments_of_the_vmm():
    said = launch.describe(qemu(Tier.EMULATED), CELL)
    assert not any("/data" in word or "/run/wrenn" in word for word in said["argv"])


def test_a_vmm_that_may_outlive_us_has_no_parent():
    assert launch.describe(qemu(Tier.KVM), CELL)["parent"] is None
