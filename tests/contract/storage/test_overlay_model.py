"""Disks made, written, kept, cloned and removed in any order, beside a model of what is in them.

The filesystem of each driver is made once; each example works in a directory of its own.
"""

import os
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

from contract.storage.test_overlay import driver_and_directory  # noqa: F401 - a fixture
from wrennd.storage.usage import disk_usage, disk_usage_of

BLOCK = 4096
BLOCKS = 32
SLACK = 16 << 10  # of a filesystem's own blocks for the map of a file


class Disks(RuleBasedStateMachine):
    """What every disk must hold is known block by block; 0 is a block that was never written."""

    driver = None
    directory = None
    disks = Bundle("disks")
    kept = Bundle("kept")

    @initialize(blocks=st.lists(st.integers(0, 255), min_size=BLOCKS, max_size=BLOCKS))
    def prepare(self, blocks):
        self.home = Path(tempfile.mkdtemp(dir=self.directory))
        self.base = self.home / "base"
        self.model = {}
        self.immutable = {}
        self.count = 0
        with self.base.open("wb") as file:
            file.truncate(BLOCK * BLOCKS)
            for number, value in enumerate(blocks):
                if value:
                    file.seek(number * BLOCK)
                    file.write(bytes([value]) * BLOCK)
        self.base.chmod(0o444)
        self.immutable[self.base] = blocks

    def path(self):
        self.count += 1
        return self.home / str(self.count)

    @rule(target=disks)
    def create(self):
        disk = self.driver.create(self.base, self.path(), uid=os.getuid())
        self.model[disk] = list(self.immutable[self.base])
        return disk

    @rule(target=kept, disk=disks)
    def snapshot(self, disk):
        if disk not in self.model:
            return multiple()
        target = self.driver.snapshot(disk, self.path())
        self.immutable[target] = list(self.model[disk])
        return target

    @rule(target=disks, source=kept)
    def clone(self, source):
        if source not in self.immutable:
            return multiple()
        disk = self.driver.clone(source, self.path(), uid=os.getuid())
        self.model[disk] = list(self.immutable[source])
        return disk

    @rule(
        disk=disks,
        at=st.integers(0, BLOCKS - 1),
        count=st.integers(1, 8),
        value=st.integers(1, 255),
    )
    def write(self, disk, at, count, value):
        count = min(count, BLOCKS - at)
        with disk.open("r+b") as file:
            file.seek(at * BLOCK)
            file.write(bytes([value]) * BLOCK * count)
        self.model[disk][at : at + count] = [value] * count

    @rule(disk=consumes(disks))
    def remove(self, disk):
        self.driver.remove(disk)
        del self.model[disk]

    @rule(source=consumes(kept))
    def forget(self, source):
        source.unlink()
        del self.immutable[source]

    @invariant()
    def each_holds_what_it_must(self):
        for path, blocks in {**self.model, **self.immutable}.items():
            assert path.read_bytes() == b"".join(bytes([value]) * BLOCK for value in blocks)

    @invariant()
    def nobody_takes_more_than_his_data(self):
        # Of disks in use the filesystem may have set blocks aside for what is written next.
        for path, blocks in self.immutable.items():
            written = sum(1 for value in blocks if value) * BLOCK
            assert disk_usage(path) <= written + SLACK
        paths = [*self.model, *self.immutable]
        assert disk_usage_of(paths + paths) == sum(disk_usage(path) for path in paths)

    @invariant()
    def nothing_else_is_there(self):
        assert {*self.home.iterdir()} == {*self.model, *self.immutable}

    def teardown(self):
        if hasattr(self, "home"):
            shutil.rmtree(self.home)


@pytest.mark.usefixtures("tmp_path")
def test_disks_in_any_order(driver_and_directory):  # noqa: F811 - the fixture
    driver, directory = driver_and_directory
    machine = type("Machine", (Disks,), {"driver": driver, "directory": directory})
    wanted = settings(
        max_examples=25,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(machine, settings=wanted)
