"""The VMMs with KVM that the lab host has: there, tests that import the fixture run on each.

A conftest.py imports both names. Outside the lab nothing changes: the probe chooses, as always.
Inside it chooses, too; what it has to choose from is arranged: with a Firecracker that was set up,
or without one.
"""

import os
from pathlib import Path

import pytest

NAMES = ("qemu-kvm", "firecracker")
GIVEN = os.environ.get("WRENN_LAB_FIRECRACKER", "")
WHY_NOT = "no Firecracker was given: make lab FIRECRACKER=FILE"


def pytest_generate_tests(metafunc):
    if os.environ.get("WRENN_LAB") and "lab_vmm" in metafunc.fixturenames:
        metafunc.parametrize("lab_vmm", NAMES, indirect=True, scope="session")


@pytest.fixture(scope="session")
def lab_vmm(request, layout):
    """The name of the VMM that the probe finds best from now on; None outside the lab."""
    name = getattr(request, "param", None)
    if name == "firecracker":
        if not GIVEN:
            pytest.skip(WHY_NOT)
        set_up_firecracker(layout)
    elif name is not None:
        layout.firecracker.unlink(missing_ok=True)
    return name


def set_up_firecracker(layout):
    from wrennd.host import choice, firecracker
    from wrennd.storage.images import ImageStore

    if not layout.firecracker.exists():
        guest = choice.probe_guest(layout, ImageStore(layout).kernel())
        firecracker.take(Path(GIVEN), layout, guest)
