"""A disk that is full when a sandbox is paused: it goes on, and once there is room it is paused."""

import shutil

import pytest

from small_filesystem import tmpfs
from wrennd.core.config import Config
from wrennd.core.errors import NoCapacity
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxRequest
from wrennd.core.sandboxes import Exit
from wrennd.core.states import State
from wrennd.core.timings import Timings
from wrennd.host import record
from wrennd.host.local import LocalSandboxes
from wrennd.linux import files
from wrennd.storage.layout import Layout

MIB = 1 << 20


@pytest.fixture
def own(layout, tmp_path, leak_check):
    """A data directory of the test's own with the small image and the kernel."""
    needed = sum(
        path.stat().st_blocks * 512
        for directory in (layout.current_kernel, layout.image_name("busybox"))
        for path in directory.resolve().iterdir()
    )
    with tmpfs(tmp_path / "small", (needed >> 10) + 260 * 1024) as mount:
        made = Layout.prepare(mount / "data")
        leak_check.watch(made.installation, made.sandboxes)
        for parent, link in (("kernels", "current"), ("images", None)):
            name = "busybox" if link is None else link
            source = (layout.image_name(name) if link is None else layout.current_kernel).resolve()
            target = made.data_dir / parent / source.name
            target.mkdir()
            for path in source.iterdir():
                copy(path, target / path.name)
            where = made.image_name(name) if link is None else made.current_kernel
            where.symlink_to(f"../{parent}/{source.name}" if link is None else source.name)
        sandboxes = LocalSandboxes(Config(data_dir=made.data_dir), print)
        yield sandboxes
        for listed in sandboxes.list():
            sandboxes.kill(listed.id)


def copy(source, target):
    with source.open("rb") as read, target.open("wb") as write:
        files.copy_sparse(read.fileno(), write.fileno())
    shutil.copystat(source, target)


def run(sandboxes, sandbox_id, script):
    with (
        sandboxes.connect(sandbox_id) as sandbox,
        sandbox.start(Command(argv=("sh", "-c", script))) as running,
    ):
        return list(running.events())[-1]


def fill(sandboxes, left_mib):
    """A file that leaves so much room."""
    path = sandboxes.layout.data_dir / "filler"
    free = shutil.disk_usage(path.parent).free
    path.write_bytes(bytes(max(0, free - left_mib * MIB)))
    return path


@pytest.mark.parametrize("left_mib", [4, 90])
def test_a_full_disk_ends_no_sandbox(own, left_mib):
    """4 MiB: the VMM's own file does not fit. 90: that does, and what is made of it does not."""
    made = new_sandbox_id()
    own.create(SandboxRequest(id=made, template="busybox", mem_mib=128), Timings())
    assert run(own, made, "head -c 9000000 /dev/urandom > /dev/shm/m; md5sum /dev/shm/m > /tmp/s")
    filler = fill(own, left_mib)
    with pytest.raises(NoCapacity, match="full"):
        own.pause(made, Timings())
    paths = own.layout.sandbox(made)
    assert record.load(paths).state is State.RUNNING
    assert list(paths.out.iterdir()) == []
    assert list(paths.data.glob("gen-*")) == []
    assert run(own, made, "md5sum -c /tmp/s") == Exit(0)
    filler.unlink()
    own.pause(made, Timings())
    own.resume(made, Timings())
    assert run(own, made, "md5sum -c /tmp/s") == Exit(0)
