"""Snapshots for tests, made without a VMM: memory as lists of pages, and files of it."""

from wrennd.snapshot.manifest import Facts, VmmFacts

FACTS = Facts(
    vmm=VmmFacts(
        kind="qemu",
        version="7.2.22",
        binary="0" * 32,
        snapshot_version="1",
        devices=("block", "net", "entropy"),
    ),
    tier="emulated",
    cpu_model="Test CPU @ 1 GHz",
    host_kernel="6.1.0-1",
    guest_kernel="6.1.0-2",
    template="base",
    sandbox="a" * 20,
    overlay="copy",
    vcpus=1,
    mem_mib=1,
)
