"""The drivers that there are here, each with a directory that it works in.

dm needs device-mapper, so it is there in the lab host only, and marked `lab`.
"""

import os

import pytest

from disks import MIB, Places, make_base
from fakes.disks import FakeDriver
from small_filesystem import on_loop
from wrennd.storage import drivers, overlay
from wrennd.storage.layout import Layout

DRIVERS = ["fake", "copy", pytest.param("reflink", marks=pytest.mark.root)]
if os.environ.get("WRENN_LAB"):
    DRIVERS += [pytest.param(name, marks=pytest.mark.lab) for name in ("dm", "dm-on-xfs")]


@pytest.fixture(params=DRIVERS)
def driver_and_directory(request, tmp_path):
    if request.param == "fake":
        yield FakeDriver(), tmp_path
    elif request.param == "copy":
        yield overlay.copy_driver(), tmp_path
    elif request.param == "dm":
        yield drivers.named(Layout.prepare(tmp_path / "data"), "dm"), tmp_path
    else:
        with on_loop(tmp_path, "xfs", 400) as mount:
            if request.param == "reflink":
                yield overlay.reflink_driver(), mount
            else:
                yield drivers.named(Layout.prepare(tmp_path / "data"), "dm"), mount


@pytest.fixture
def driver(driver_and_directory):
    return driver_and_directory[0]


@pytest.fixture
def directory(driver_and_directory):
    return driver_and_directory[1]


@pytest.fixture
def places(driver, directory):
    found = Places(directory, driver)
    yield found
    found.remove_all()


@pytest.fixture
def base(directory):
    """4 MiB: data, a hole, data; read-only."""
    contents = {1: b"a" * (MIB - 4096), 3 * MIB // 4096: b"b" * MIB}
    return make_base(directory / "base.img", contents, 1024)
