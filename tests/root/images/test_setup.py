"""`wrenn setup` where things go wrong: full disks, kills, missing rights. Downloads some 40 MiB."""

import json
import os
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from wrennd.core.deadline import Deadline
from wrennd.core.errors import Error, HostUnsuitable, ImageBroken, NoCapacity, NotFound
from wrennd.core.sizes import MIB
from wrennd.host.setup import ensure, ensure_kernel, setup
from wrennd.linux.process import PIPE, run, spawn
from wrennd.storage.images import ImageStore
from wrennd.storage.layout import Layout

pytestmark = pytest.mark.root


@contextmanager
def small_disk(directory: Path, size_mib: int):
    """A filesystem of that size on `directory`."""
    directory.mkdir()
    run(("mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "wrenn-test", directory), timeout_s=60)
    try:
        yield directory
    finally:
        run(("umount", directory), timeout_s=60)


def fill(directory: Path, *, leave_mib: int) -> Path:
    filler = directory / "filler"
    count = shutil.disk_usage(directory).free - leave_mib * MIB
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        os.posix_fallocate(fd, 0, count)
    finally:
        os.close(fd)
    return filler


def half_made(layout: Layout) -> list[Path]:
    places = (layout.images, layout.kernels, layout.names, layout.cache)
    return [path for place in places for path in place.glob("*.tmp")]


def test_a_disk_that_is_too_small_is_said_before_anything_is_done(tmp_path):
    with small_disk(tmp_path / "disk", 64) as disk:
        layout = Layout.prepare(disk / "data")
        said = []
        with pytest.raises(NoCapacity, match=r"kernel needs .* in .*disk/data, where .* are free"):
            setup(layout, ["busybox"], report=said.append)
        assert said == []
        assert not layout.current_kernel.is_symlink()
        assert half_made(layout) == []


def test_a_disk_that_becomes_full_leaves_no_half_and_setup_goes_on_later(tmp_path):
    with small_disk(tmp_path / "disk", 900) as disk:
        layout = Layout.prepare(disk / "data")
        store = ImageStore(layout)
        filled = []

        def fill_at(moment: str, leave_mib: int):
            def report(line: str) -> None:
                if moment in line:
                    filled.append(fill(disk, leave_mib=leave_mib))

            return report

        with pytest.raises(NoCapacity, match="kernel") as caught:
            setup(layout, ["busybox"], report=fill_at("kernel: downloading", 130))
        assert "make room" in caught.value.hint
        with pytest.raises(NotFound):
            store.kernel()
        assert half_made(layout) == []
        filled.pop().unlink()

        with pytest.raises(NoCapacity, match="busybox"):
            setup(layout, ["busybox"], report=fill_at("busybox: writing", 10))
        kernel = store.kernel()  # finished before, so it stayed
        with pytest.raises(NotFound):
            store.find("busybox")
        assert half_made(layout) == []
        filled.pop().unlink()

        said: list[str] = []
        setup(layout, ["busybox"], report=said.append)
        assert store.kernel() == kernel
        assert store.find("busybox").size_bytes == 4096 * MIB
        assert not any(line.startswith("kernel") for line in said)
        store.verify(kernel)
        assert half_made(layout) == []


@pytest.fixture
def copied(layout, images, kernel, tmp_path):
    """An installation of the test's own, with kernel, busybox and cache of the shared one."""
    own = Layout.prepare(tmp_path / "data")
    cached = [*layout.cache.glob("runtime-*"), *layout.cache.glob("tree-busybox-*")]
    for source in (kernel.vmlinux.parent, images.find("busybox").rootfs.parent, *cached):
        target = own.data_dir / source.relative_to(layout.data_dir)
        run(("cp", "-a", "--sparse=always", source, target), timeout_s=120)
    for link in (layout.current_kernel, layout.image_name("busybox")):
        (own.data_dir / link.relative_to(layout.data_dir)).symlink_to(link.readlink())
    yield own
    shutil.rmtree(own.data_dir)


def test_what_is_there_is_found_without_a_word(layout):
    said: list[str] = []
    ensure(layout, "base", said.append)
    ensure(layout, "busybox", said.append)
    ensure_kernel(layout, said.append)
    setup(layout, report=said.append)
    assert said == []


def test_an_image_without_recipe_is_not_found(layout):
    with pytest.raises(NotFound, match="'nosuch'"):
        ensure(layout, "nosuch", print)
    with pytest.raises(NotFound, match="'nosuch'"):
        setup(layout, ["nosuch"], report=print)


def test_a_broken_image_stops_a_command_and_setup_repairs_it(copied):
    store = ImageStore(copied)
    rootfs = store.find("busybox").rootfs
    rootfs.chmod(0o600)
    os.truncate(rootfs, 1000)
    with pytest.raises(ImageBroken, match=str(rootfs)):
        ensure(copied, "busybox", print)
    said: list[str] = []
    setup(copied, ["busybox"], report=said.append)
    assert "building it again" in said[0]
    store.verify(store.find("busybox"))


def child(function) -> dict:
    """What `function` raises in a forked child, as it would go over the wire."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            function()
            said: dict = {}
        except Error as error:
            said = error.to_wire()
        os.write(theirs, json.dumps(said).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as reader:
        said = json.loads(reader.read())
    assert os.waitpid(pid, 0)[1] == 0
    return said


def test_without_root_it_is_said_who_must_do_it(tmp_path):
    layout = Layout.prepare(tmp_path / "data")

    def as_nobody() -> None:
        os.setuid(65534)
        setup(layout, ["busybox"], report=print)

    said = child(as_nobody)
    assert said["code"] == HostUnsuitable.code
    assert "root" in said["message"]
    assert "sudo" in said["hint"]


@pytest.mark.parametrize(
    ("tool", "package"), [("mke2fs", "e2fsprogs"), ("mmdebstrap", "mmdebstrap")]
)
def test_a_tool_that_is_missing_is_said_with_its_package(tmp_path, tool, package):
    """In a mount namespace of its own, where the tool can't be executed."""
    hide = f'mount --bind /dev/null {shutil.which(tool)} && exec "$@"'
    program = sys.executable, "-c", PROGRAM, tmp_path / "data", "base"
    done = run(("unshare", "--mount", "sh", "-c", hide, "sh", *program), timeout_s=60, check=False)
    assert done.returncode == 1
    assert f"HostUnsuitable: the host lacks what images are built with: {package}" in done.stderr


PROGRAM = """
import sys
from pathlib import Path
from wrennd.host.setup import setup
from wrennd.storage.layout import Layout
setup(Layout.prepare(Path(sys.argv[1])), sys.argv[2:], report=lambda line: print(line, flush=True))
"""


@contextmanager
def setup_running(layout: Layout, image: str):
    """A setup in a process of its own, and the lines that it says."""
    with spawn(
        (sys.executable, "-c", PROGRAM, layout.data_dir, image), stdout=PIPE, stderr=2
    ) as process:
        assert process.stdout is not None
        yield process, (line.decode() for line in process.stdout)


def wait_until(condition, deadline: Deadline, what: str) -> None:
    while not condition():
        deadline.check(what)
        os.sched_yield()


def mentioning(text: str) -> list[str]:
    """Command lines of processes, and mounts, that name `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found + [m for m in Path("/proc/self/mountinfo").read_text().splitlines() if text in m]


def test_a_setup_that_is_killed_leaves_no_name_and_the_next_one_cleans_up(copied):
    store = ImageStore(copied)
    (copied.names / "busybox").unlink()
    with setup_running(copied, "busybox") as (process, lines):
        assert any("busybox: writing" in line for line in lines)
        process.signal(signal.SIGKILL)
        assert process.wait(Deadline.after(60)) == -signal.SIGKILL
    with pytest.raises(NotFound):
        store.find("busybox")
    # What it had started ends by itself, and whatever it writes, it has no name.
    wait_until(
        lambda: not mentioning(f"{copied.data_dir}/"), Deadline.after(60), "the end of mke2fs"
    )
    setup(copied, ["busybox"], report=print)
    assert store.find("busybox").name == "busybox"
    assert half_made(copied) == []


def test_mmdebstrap_ends_with_the_setup_that_is_killed(copied):
    with setup_running(copied, "base") as (process, lines):
        assert any("base: installing" in line for line in lines)
        wait_until(
            lambda: [*copied.cache.glob("tree-base-*.tmp/usr/bin")],
            Deadline.after(120),
            "mmdebstrap unpacking",
        )
        process.signal(signal.SIGKILL)
        assert process.wait(Deadline.after(60)) == -signal.SIGKILL
    wait_until(
        lambda: not mentioning(f"{copied.data_dir}/"), Deadline.after(20), "the end of mmdebstrap"
    )
    with pytest.raises(NotFound):
        ImageStore(copied).find("base")


def test_two_setups_at_once_wait_for_each_other(copied):
    (copied.names / "busybox").unlink()
    with setup_running(copied, "busybox") as (first, first_lines):
        assert any("writing" in line for line in first_lines)
        with setup_running(copied, "busybox") as (second, second_lines):
            assert [*second_lines] == ["waiting for another setup to end\n"]
            assert second.wait(Deadline.after(60)) == 0
        assert any("ready" in line for line in first_lines)
        assert first.wait(Deadline.after(60)) == 0
