from pathlib import Path

from wrennd.vmm import probe
from wrennd.vmm.program import Tier, firecracker, qemu


def test_a_kvm_device_without_hardware_virtualization_is_not_believed():
    problem = probe.kvm_problem("flags\t\t: fpu sse2 hypervisor\n", Path("/dev/null"))
    assert "neither vmx nor svm" in problem


def test_hardware_without_a_device_says_what_to_do():
    problem = probe.kvm_problem("flags : fpu vmx\n", Path("/nonexistent"))
    assert "modprobe" in problem


def test_hardware_with_a_device_may_work():
    assert probe.kvm_problem("flags : fpu svm\n", Path("/dev/null")) == ""


def test_the_order_is_firecracker_then_kvm_then_emulation(tmp_path):
    candidates = probe.Candidates(directory=tmp_path)
    names = [program.name for program in candidates.programs()]
    assert names == ["firecracker", "qemu-kvm", "qemu-emulated"]


def test_a_binary_that_is_not_there_is_named_with_what_to_do(tmp_path):
    assert "wrenn setup --firecracker" in probe.missing(firecracker(tmp_path / "none"))


def test_the_tier_decides_the_accelerator_and_the_device():
    emulated, kvm = qemu(Tier.EMULATED), qemu(Tier.KVM)
    assert emulated.argv[-2:] == ("--accel", "tcg")
    assert kvm.argv[-2:] == ("--accel", "kvm")
    assert "/dev/kvm" in kvm.devices
    assert "/dev/kvm" not in emulated.devices


def test_versions_before_the_first_that_is_supported_are_too_old():
    assert [v for v in ("1.16.0", "1.9.2", "0.25.0", "") if not probe.is_too_old(v)] == []
    assert [v for v in ("1.16.1", "1.17.0-dev", "2.0.0") if probe.is_too_old(v)] == []
