"""Disks made, written, kept, flattened, cloned and removed in any order, beside a model of what is
in them.

The filesystem of each driver is made once; each example works in a directory of its own.
"""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from disks import BLOCK, Places, make_base
from wrennd.storage.cow import BASE_PREFIX
from wrennd.storage.usage import disk_usage, disk_usage_of

BLOCKS = 32
# Of a filesystem's own blocks for the map of a file, and of what a dm disk says of itself.
SLACK = 32 << 10


class Disks(RuleBasedStateMachine):
    """What every disk must hold is known block by block; 0 is a block that was never written.

    Block 0 is the base's superblock, which nobody writes here.
    """

    driver = None
    directory = None
    disks = Bundle("disks")
    kept = Bundle("kept")

    @initialize(blocks=st.lists(st.integers(0, 255), min_size=BLOCKS - 1, max_size=BLOCKS - 1))
    def prepare(self, blocks):
        self.home = Path(tempfile.mkdtemp(dir=self.directory))
        contents = {n: bytes([value]) * BLOCK for n, value in enumerate(blocks, 1) if value}
        self.base = make_base(self.home / "base.img", contents, BLOCKS)
        self.places = Places(self.home, self.driver)
        self.blocks = blocks
        self.model = {}
        self.immutable = {}

    @rule(target=disks)
    def create(self):
        disk = self.places.create(self.base)
        self.model[disk] = list(self.blocks)
        return disk

    @rule(target=kept, disk=disks, is_flat=st.booleans())
    def keep(self, disk, is_flat):
        if disk not in self.model:
            return multiple()
        keep = self.driver.flatten if is_flat else self.driver.snapshot
        target = keep(disk, self.places.new())
        self.immutable[target] = list(self.model[disk])
        return target

    @rule(target=kept, source=kept)
    def flatten_kept(self, source):
        if source not in self.immutable:
            return multiple()
        target = self.driver.flatten(source, self.places.new())
        self.immutable[target] = list(self.immutable[source])
        return target

    @rule(target=disks, source=kept)
    def clone(self, source):
        if source not in self.immutable:
            return multiple()
        disk = self.places.clone(source)
        self.model[disk] = list(self.immutable[source])
        return disk

    @rule(
        disk=disks,
        at=st.integers(1, BLOCKS - 1),
        count=st.integers(1, 8),
        value=st.integers(1, 255),
    )
    def write(self, disk, at, count, value):
        if disk not in self.model:
            return
        count = min(count, BLOCKS - at)
        self.places.write(disk, at * BLOCK, bytes([value]) * BLOCK * count)
        self.model[disk][at - 1 : at - 1 + count] = [value] * count

    @rule(disk=disks)
    def reopen(self, disk):
        if disk in self.model:
            self.places.reopen(disk)

    @rule(disk=consumes(disks))
    def remove(self, disk):
        self.places.remove(disk)
        self.model.pop(disk, None)
        disk.parent.rmdir()

    @rule(source=consumes(kept))
    def forget(self, source):
        shutil.rmtree(source.parent)
        self.immutable.pop(source, None)

    @invariant()
    def each_holds_what_it_must(self):
        for disk, blocks in self.model.items():
            wanted = b"".join(bytes([value]) * BLOCK for value in blocks)
            assert self.places.read(disk)[BLOCK:] == wanted

    @invariant()
    def nobody_takes_more_than_his_data(self):
        # Of disks in use the filesystem may have set blocks aside for what is written next.
        for path, blocks in self.immutable.items():
            written = (1 + sum(1 for value in blocks if value)) * BLOCK
            assert disk_usage(path) <= written + SLACK
        paths = [*self.model, *self.immutable]
        assert disk_usage_of(paths + paths) == sum(disk_usage(path) for path in paths)

    @invariant()
    def nothing_else_is_there(self):
        found = {path for path in self.home.glob("*/*") if not path.name.startswith(BASE_PREFIX)}
        assert found == {*self.model, *self.immutable}

    def teardown(self):
        if not hasattr(self, "home"):
            return
        for source, blocks in self.immutable.items():  # kept ones are read by way of a disk
            disk = self.places.clone(source)
            wanted = b"".join(bytes([value]) * BLOCK for value in blocks)
            assert self.places.read(disk)[BLOCK:] == wanted
        self.places.remove_all()
        shutil.rmtree(self.home)


@pytest.mark.smoke
@pytest.mark.usefixtures("tmp_path")
def test_disks_in_any_order(driver_and_directory):
    driver, directory = driver_and_directory
    machine = type("Machine", (Disks,), {"driver": driver, "directory": directory})
    wanted = settings(
        max_examples=min(25, settings.default.max_examples),
        stateful_step_count=min(30, settings.default.stateful_step_count),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(machine, settings=wanted)
