"""The lab is the machine that it should be: device-mapper, KVM, networks, Debian's stock kernel."""

import os
from pathlib import Path

import pytest

from wrennd.core.config import Config
from wrennd.host import doctor
from wrennd.host.doctor import Status
from wrennd.linux import process

pytestmark = pytest.mark.smoke


@pytest.mark.parametrize("module", ["dm_snapshot", "kvm_amd", "loop", "tun", "veth", "nf_tables"])
def test_modules_are_loaded(module):
    assert Path("/sys/module", module).is_dir()


@pytest.mark.parametrize(
    "node", ["kvm", "mapper/control", "loop-control", "net/tun", "userfaultfd"]
)
def test_device_nodes_are_there(node):
    assert Path("/dev", node).is_char_device()


def test_the_kernel_is_that_of_debians_servers():
    assert os.uname().release.endswith("-amd64")
    assert "cloud" not in os.uname().release


def test_udev_answers_events():
    settled = process.run(["udevadm", "settle", "--timeout=60"], timeout_s=90, check=False)
    assert settled.returncode == 0
    assert Path("/run/udev/control").is_socket()


def test_doctor_finds_all_that_sandboxes_need_and_kvm(layout):
    checks = {check.name: check for check in doctor.examine(Config(data_dir=layout.data_dir))}
    assert [c for c in checks.values() if c.status is Status.MISSING] == []
    assert "tier kvm" in checks["vmm"].found
