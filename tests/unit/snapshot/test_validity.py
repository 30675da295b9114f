"""Where a snapshot can be restored, and what is only different."""

from dataclasses import replace

import pytest

from snapshot_samples import FACTS
from wrennd.snapshot.validity import Compatibility, Here, compatible

FIT = Compatibility(refusals=(), warnings=())
FIRECRACKER = replace(
    FACTS,
    tier="kvm",
    vmm=replace(FACTS.vmm, kind="firecracker", version="1.16.1", snapshot_version="11.1.0"),
)


def here(facts, *, vmm=None, **changes):
    """The host that made a snapshot, changed."""
    same = {
        name: getattr(facts, name) for name in ("tier", "cpu_model", "host_kernel", "guest_kernel")
    }
    return Here(**(same | changes), vmm=replace(facts.vmm, **(vmm or {})))


@pytest.mark.parametrize("facts", [FACTS, FIRECRACKER])
def test_the_same_host(facts):
    assert compatible(facts, here(facts)) == FIT


@pytest.mark.parametrize(
    ("facts", "changes", "refusal"),
    [
        (FACTS, {"vmm": {"kind": "firecracker"}}, "it was made by qemu, and here is firecracker"),
        (FIRECRACKER, {"vmm": {"kind": "qemu"}}, "it was made by firecracker, and here is qemu"),
        (FACTS, {"vmm": {"version": "8.0.1"}}, "it was made by QEMU 7.2, and here is 8.0"),
        (
            FACTS,
            {"vmm": {"snapshot_version": "2"}},
            "its state is of version 1, and the VMM here writes 2",
        ),
        (
            FACTS,
            {"vmm": {"devices": ("block", "net")}},
            "its machine has the devices block, net, entropy, and one here has block, net",
        ),
        (FACTS, {"tier": "kvm"}, "its guest was emulated, and one here is kvm"),
        (
            FIRECRACKER,
            {"cpu_model": "Other CPU"},
            "its guest saw the CPU 'Test CPU @ 1 GHz', and this is 'Other CPU'",
        ),
        (
            FIRECRACKER,
            {"vmm": {"snapshot_version": "12.0.0", "version": "1.17.0"}},
            "its Firecracker snapshot version is 11.1.0, and Firecracker 1.17.0 here has 12.0.0",
        ),
        (
            FIRECRACKER,
            {"vmm": {"snapshot_version": "11.0.0"}},
            "its Firecracker snapshot version is 11.1.0, and Firecracker 1.16.1 here has 11.0.0",
        ),
        (
            FIRECRACKER,
            {"vmm": {"snapshot_version": "unknown"}},
            "its Firecracker snapshot version is 11.1.0, and Firecracker 1.16.1 here has unknown",
        ),
    ],
)
def test_what_can_not_be_restored_is_refused_by_name(facts, changes, refusal):
    assert compatible(facts, here(facts, **changes)).refusals == (refusal,)


@pytest.mark.parametrize(
    ("facts", "changes", "warning"),
    [
        (FACTS, {"vmm": {"version": "7.2.23"}}, "the VMM's version was 7.2.22, and is 7.2.23"),
        (FACTS, {"vmm": {"binary": "x"}}, f"the VMM's program was {'0' * 32}, and is x"),
        (FACTS, {"host_kernel": "6.2"}, "the host's kernel was 6.1.0-1, and is 6.2"),
        (FACTS, {"guest_kernel": "6.2"}, "the guest's kernel was 6.1.0-2, and is 6.2"),
        (FACTS, {"cpu_model": "Other"}, "the CPU was Test CPU @ 1 GHz, and is Other"),
    ],
)  # fmt: skip
def test_what_may_be_different_is_only_told(facts, changes, warning):
    assert compatible(facts, here(facts, **changes)) == Compatibility(
        refusals=(), warnings=(warning,)
    )


def test_a_newer_firecracker_loads_older_minor_versions():
    found = compatible(FIRECRACKER, here(FIRECRACKER, vmm={"snapshot_version": "v11.2.0"}))
    assert found.refusals == ()


def test_all_reasons_are_given():
    changed = here(FACTS, vmm={"version": "8.0", "devices": ()}, tier="kvm")
    assert len(compatible(FACTS, changed).refusals) == 3
