"""The memory of a guest without a guest: the RAM shim in a process that stands in for QEMU.

Each test compares what is found with what the process was told to do.
"""

import contextlib
import json
import os
import random
import re
import select
import socket
import sys
from pathlib import Path

import pytest

from page_handler import PageHandler
from swap_space import swap_space, swapped_kib
from wrennd.core.deadline import Deadline
from wrennd.linux import files, process
from wrennd.qemu_vmm import memory_file
from wrennd.qemu_vmm.faults import Fault
from wrennd.qemu_vmm.memory import Origin, Plan, Tracking, best_tracking
from wrennd.qemu_vmm.qemu import shim_path

PAGE = 4096
PAGES = 512
SIZE = PAGES * PAGE
OWNER = Path(__file__).parents[2] / "fakes/ram_owner.py"
BEST = best_tracking()
TRACKINGS = sorted({BEST, Tracking.POPULATED})
pytestmark = pytest.mark.lab  # its kernel is older
needs_exact = pytest.mark.skipif(
    BEST is not Tracking.EXACT, reason="this kernel is older than 6.7: it can't tell dirty pages"
)


class Owner:
    """A process with RAM of PAGES pages, and what we know of it from outside."""

    def __init__(self, held, origin, tracking):
        plan = Plan(SIZE, origin, tracking)
        held.callback(plan.close)
        self.process = process.spawn(
            [sys.executable, "-I", OWNER, str(SIZE)],
            env={
                **process.CLEAN_ENVIRONMENT,
                "LD_PRELOAD": os.fspath(shim_path()),
                "WRENN_RAM_SHIM": plan.argument,
            },
            stdin=process.PIPE,
            stdout=process.PIPE,
            pass_fds=plan.inherited_fds,
        )
        held.callback(self.process.close)
        plan.is_spawned()
        assert select.select([plan.shim], [], [], 30)[0], "the shim reports"
        self.memory = plan.attach(self.process.pid)
        held.callback(self.memory.close)
        held.callback(self.process.close)
        assert self._answer() == "ready"

    def _answer(self):
        assert select.select([self.process.stdout], [], [], 30)[0], "the process answers"
        return json.loads(self.process.stdout.readline())

    def do(self, operation, page, count=1, value=0):
        self.process.stdin.write(json.dumps([operation, page, count, value]).encode() + b"\n")
        self.process.stdin.flush()
        return self._answer()


@pytest.fixture
def held():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def image(tmp_path):
    """A memory file: every page is its number, but each seventh, which is zeros."""
    path = tmp_path / "image"
    path.write_bytes(b"".join(bytes([value]) * PAGE for value in image_values()))
    return path


def image_values():
    return [0 if page % 7 == 0 else page % 251 for page in range(PAGES)]


@pytest.fixture
def owner(held, image, tmp_path):
    """Makes one: its memory is zeros, a file's, or a handler's."""

    def make(kind, tracking, **handler):
        origin = Origin()
        if kind == "file":
            fd = os.open(image, os.O_RDONLY)
            held.callback(os.close, fd)
            origin = Origin(file=fd)
        elif kind == "uffd":
            serving = PageHandler(tmp_path / "uffd.sock", image.read_bytes(), **handler)
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(os.fspath(serving.path))
            origin = Origin(handler=connection)
            made = Owner(held_by(serving), origin, tracking)
            made.handler = serving
            return made
        return Owner(held, origin, tracking)

    def held_by(serving):
        held.enter_context(serving)
        return held

    return make


def pages(found):
    return {page for start, end in found for page in range(start // PAGE, end // PAGE)}


def data_pages(path):
    with path.open("rb") as file:
        return pages(files.data_runs(file.fileno(), SIZE))


def content(path):
    data = path.read_bytes()
    assert len(data) == SIZE
    return [data[at : at + PAGE] for at in range(0, SIZE, PAGE)]


def filled(values):
    return [bytes([value]) * PAGE for value in values]


def save(owner, path, *, is_diff=True):
    memory_file.save(os.fspath(path), owner.memory, is_diff=is_diff)
    return path


def overlaid(base, diff):
    """`base` with the data of the file `diff`."""
    found, changed = list(base), content(diff)
    for page in data_pages(diff):
        found[page] = changed[page]
    return found


def test_kernels_from_6_7_on_tell_exactly():
    version = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    assert BEST is (Tracking.EXACT if version >= (6, 7) else Tracking.POPULATED)


@pytest.mark.parametrize("kind", ["zeros", "file", "uffd"])
def test_memory_is_what_it_was_made_of(owner, kind):
    made = owner(kind, BEST)
    wanted = [0] * PAGES if kind == "zeros" else image_values()
    assert made.do("read", 0, PAGES) == wanted


@needs_exact
@pytest.mark.parametrize("kind", ["zeros", "file", "uffd"])
def test_exactly_what_was_written_is_dirty(owner, kind, tmp_path):
    made = owner(kind, Tracking.EXACT)
    made.do("read", 100, 50)
    made.do("fill", 120, 3, 9)
    made.do("fill", 300, 1, 0)
    assert pages(made.memory.dirty()) == {120, 121, 122, 300}
    saved = save(made, tmp_path / "one")
    assert pages(made.memory.dirty()) == set()
    made.do("read", 0, PAGES)
    made.do("fill", 121, 1, 8)
    assert pages(made.memory.dirty()) == {121}
    assert data_pages(saved) == {120, 121, 122, 300}
    assert content(saved)[300] == bytes(PAGE), "a page of zeros that was written is data"


@needs_exact
def test_a_handler_that_knows_no_tracking_makes_dirty_what_it_installs(owner):
    made = owner("uffd", Tracking.EXACT, heeds_wp=False)
    made.do("read", 8, 4)
    made.do("fill", 20, 1, 1)
    assert pages(made.memory.dirty()) == {8, 9, 10, 11, 20}


@pytest.mark.parametrize("kind", ["zeros", "file", "uffd"])
def test_without_exact_tracking_own_pages_are_dirty_and_stay_so(owner, kind, tmp_path):
    made = owner(kind, Tracking.POPULATED)
    made.do("read", 8, 4)
    made.do("fill", 20, 1, 1)
    # Of zeros that were read, the kernel can't tell that they are nobody's; a file's page it can.
    wanted = {20} if kind == "file" else {8, 9, 10, 11, 20}
    for _ in range(2):
        assert pages(made.memory.dirty()) == wanted
        save(made, tmp_path / "one")


@pytest.mark.parametrize("tracking", TRACKINGS)
@pytest.mark.parametrize("kind", ["zeros", "file", "uffd"])
def test_diffs_on_top_of_each_other_equal_a_full_one(owner, kind, tracking, tmp_path):
    """Random writes, reads and discards, five times; discarded pages may be what they were."""
    made = owner(kind, tracking)
    chance = random.Random(f"{kind} {tracking}")
    base = filled([0] * PAGES if kind == "zeros" else image_values())
    for number in range(5):
        given_back = set()
        for _ in range(60):
            page = chance.randrange(PAGES)
            count = min(chance.choice([1, 1, 2, 30]), PAGES - page)
            operation = chance.choice(["fill", "fill", "fill", "read", "discard"])
            value = chance.choice([0, *range(1, 20)])
            made.do(operation, page, count, value)
            touched = set(range(page, page + count))
            if operation == "discard":
                given_back |= touched
            elif operation == "fill":
                given_back -= touched
        diff = save(made, tmp_path / f"diff{number}")
        full = save(made, tmp_path / f"full{number}", is_diff=False)
        base, whole = overlaid(base, diff), content(full)
        differ = {page for page in range(PAGES) if base[page] != whole[page]}
        assert differ <= given_back
        base = whole
        assert made.do("read", 0, PAGES) == [page[0] for page in whole]


@pytest.mark.parametrize("kind", ["file", "uffd"])
def test_a_full_one_has_what_was_never_touched(owner, kind, image, tmp_path):
    made = owner(kind, BEST)
    made.do("fill", 3, 1, 77)
    full = save(made, tmp_path / "full", is_diff=False)
    wanted = filled(image_values())
    wanted[3] = bytes([77]) * PAGE
    assert content(full) == wanted
    assert content(image) == filled(image_values()), "the file that it came from is as it was"
    assert full.stat().st_blocks * 512 < SIZE, "zeros are holes"


@needs_exact
def test_a_full_one_may_replace_the_file_that_memory_is_of(owner, image, tmp_path):
    made = owner("file", Tracking.EXACT)
    made.do("read", 0, 20)
    made.do("fill", 3, 1, 77)
    made.do("fill", 4, 1, 0)
    made.do("fill", 14, 1, 5)
    save(made, image, is_diff=False)
    wanted = image_values()
    wanted[3], wanted[4], wanted[14] = 77, 0, 5
    assert content(image) == filled(wanted)
    assert made.do("read", 0, PAGES) == wanted
    made.do("fill", 3, 1, 78)
    assert pages(made.memory.dirty()) == {3}


@needs_exact
def test_a_diff_merges_with_a_file_of_the_same_length_and_empties_others(owner, tmp_path):
    made = owner("zeros", Tracking.EXACT)
    path = tmp_path / "memory"
    path.write_bytes(b"x" * (SIZE + 1))
    made.do("fill", 1, 2, 5)
    save(made, path)
    assert data_pages(path) == {1, 2}
    made.do("fill", 2, 2, 6)
    save(made, path)
    assert data_pages(path) == {1, 2, 3}
    assert [page[0] for page in content(path)[1:4]] == [5, 6, 6]


@needs_exact
def test_a_failure_forgets_no_page(owner, tmp_path, tiny_disk):
    made = owner("zeros", Tracking.EXACT)
    made.do("fill", 10, 300, 5)
    with pytest.raises(Fault, match=r"Cannot write memory file: .*No space left on device"):
        save(made, tiny_disk / "memory")
    made.do("fill", 400, 1, 6)
    with pytest.raises(Fault, match="Cannot perform open on the memory backing file: "):
        save(made, tmp_path / "no" / "memory")
    diff = save(made, tmp_path / "memory")
    assert data_pages(diff) == {*range(10, 310), 400}
    assert content(diff)[10] == bytes([5]) * PAGE


@pytest.fixture
def tiny_disk(tmp_path):
    place = tmp_path / "tiny"
    place.mkdir()
    process.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tiny", place], timeout_s=60)
    try:
        yield place
    finally:
        process.run(["umount", place], timeout_s=60)


@pytest.fixture
def swap():
    with swap_space(16):
        yield


@pytest.mark.parametrize("tracking", TRACKINGS)
def test_what_was_swapped_out_is_dirty_too(owner, tracking, tmp_path, swap):
    made = owner("zeros", tracking)
    made.do("fill", 0, 200, 3)
    assert made.do("pageout", 0, 200) is None
    if swapped_kib(made.process.pid) == 0:
        pytest.fail("the kernel swapped nothing out: this test shows nothing")
    diff = save(made, tmp_path / "one")
    assert data_pages(diff) == set(range(200))
    assert content(diff)[:200] == filled([3] * 200)
    made.do("fill", 5, 2, 4)
    assert made.do("pageout", 0, 200) is None
    second = save(made, tmp_path / "two")
    assert data_pages(second) == ({5, 6} if tracking is Tracking.EXACT else set(range(200)))
    assert content(second)[5:7] == filled([4] * 2)


@pytest.mark.parametrize("kind", ["zeros", "uffd"])
def test_given_back_memory_is_gone_and_its_handler_is_told(owner, kind):
    made = owner(kind, BEST)
    made.do("fill", 0, 256, 3)
    before = anonymous_kib(made.process.pid)
    assert made.do("discard", 0, 256) is None
    assert anonymous_kib(made.process.pid) <= before - 256 * 4 + 64
    assert made.do("read", 0, 256) == [0] * 256
    if kind == "uffd":
        assert made.handler.removed == {page * PAGE for page in range(256)}


def anonymous_kib(pid):
    """Counted page by page; the counters of `status` lag behind on some kernels."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Anonymous:")).split()[1])


@needs_exact
def test_huge_pages_are_not_made_of_it(owner):
    made = owner("zeros", Tracking.EXACT)
    assert made.do("huge", 0, PAGES) is None
    made.do("fill", 1, 1, 3)
    assert pages(made.memory.dirty()) == {1}


def test_memory_of_a_process_that_ended(owner, tmp_path):
    made = owner("zeros", BEST)
    made.do("fill", 1, 1, 3)
    dirty = made.memory.dirty()
    made.process.close()
    with pytest.raises(ProcessLookupError):
        list(made.memory.read(dirty))
    for is_diff in (True, False):  # nothing is dirty in a process that is gone, but that is no news
        with pytest.raises(Fault, match=r"^Create snapshot error: Cannot .*\(os error 3\)$"):
            save(made, tmp_path / "memory", is_diff=is_diff)


def test_the_shim_ends_a_process_whose_server_is_gone(held, tmp_path):
    plan = Plan(SIZE, Origin(), BEST)
    held.callback(plan.close)
    with process.spawn(
        [sys.executable, "-I", OWNER, str(SIZE)],
        env={
            **process.CLEAN_ENVIRONMENT,
            "LD_PRELOAD": os.fspath(shim_path()),
            "WRENN_RAM_SHIM": plan.argument.replace(str(os.getpid()), "1", 1),
        },
        pass_fds=plan.inherited_fds,
    ) as child:
        assert child.wait(Deadline.after(30)) == 1
