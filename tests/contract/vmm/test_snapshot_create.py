"""`/snapshot/create`: of one guest that goes on between them."""

import os

import pytest

from leaks import LeakCheck
from vmm_server import Server, is_ours
from vmm_snapshots import (
    MEM_MIB,
    boot,
    counts_exactly,
    create,
    data_pages,
    differing,
    digest,
    overlaid,
    pause,
    resume,
    take,
)
from wrennd.linux import process

pytestmark = [pytest.mark.vm, pytest.mark.root]

SIZE = MEM_MIB << 20
QUEUE_PAGES = 64  # of all devices' queues at most
PREFIX = "Create snapshot error: "


@pytest.fixture(scope="module")
def running(vmm_under_test, kernel, test_initrd, tmp_path_factory):
    """A guest whose dirty pages are tracked, or, as `ours` can too, are all that it has."""
    check = LeakCheck()
    with Server(tmp_path_factory.mktemp("running")) as server:
        yield boot(server.wait_for_api(), kernel, test_initrd)
    check.finish()


@pytest.fixture
def paused(running):
    pause(running.server)
    yield running
    resume(running.server)


@pytest.fixture
def base(paused, tmp_path):
    """A Full one of the paused guest."""
    return take(paused, tmp_path, name="base")


def fault(paused, tmp_path, **changed):
    files = {"state": tmp_path / "state", "memory": tmp_path / "memory", **changed}
    return create(paused.server, files["state"], files["memory"], "Diff").fault


def test_not_while_it_runs(running, tmp_path):
    assert fault(running, tmp_path) == (
        f"{PREFIX}Cannot save the microVM state: Operation not allowed: "
        "save/restore unavailable while running"
    )


def test_the_first_diff_is_a_full_one_without_what_was_never_touched(kernel, test_initrd, tmp_path):
    with Server(tmp_path) as server:
        guest = boot(server.wait_for_api(), kernel, test_initrd)
        pause(server)
        diff = take(guest, tmp_path, "Diff", "diff")
        full = take(guest, tmp_path, "Full", "full")
        assert diff.memory.stat().st_size == full.memory.stat().st_size == SIZE
        assert differing(diff.memory.read_bytes(), full.memory.read_bytes()) == []
        assert 0 < len(data_pages(diff.memory)) < SIZE // 4096


def test_the_guest_goes_on_and_a_diff_has_what_it_did(paused, base, tmp_path):
    memory = base.memory.read_bytes()
    for turn in range(3):
        resume(paused.server)
        before = digest(paused)
        paused.run(f"dd if=/dev/urandom of=/more{turn} bs=4k count=100 2>/dev/null")
        assert digest(paused) == before
        pause(paused.server)
        diff = take(paused, tmp_path, "Diff", f"diff{turn}")
        full = take(paused, tmp_path, "Full", f"full{turn}")
        changed = len(data_pages(diff.memory))
        assert changed >= 100
        assert changed < len(data_pages(base.memory)) / 2 or not counts_exactly()
        memory = overlaid(memory, diff.memory)
        assert differing(memory, full.memory.read_bytes()) == []


def test_pages_that_the_guest_zeroed_are_data(paused, base, tmp_path):
    resume(paused.server)
    paused.run("dd if=/dev/zero of=/data bs=4k count=256 conv=notrunc 2>/dev/null")
    pause(paused.server)
    diff = take(paused, tmp_path, "Diff", "diff")
    whole = diff.memory.read_bytes()
    zeroed = [page for page in data_pages(diff.memory) if not any(whole[page * 4096 :][:4096])]
    assert len(zeroed) >= 256
    full = take(paused, tmp_path, "Full", "full")
    merged = overlaid(base.memory.read_bytes(), diff.memory)
    assert differing(merged, full.memory.read_bytes()) == []


def check_is_empty(diff, base):
    """Firecracker marks the pages of its devices' queues with each snapshot, written to or not."""
    if counts_exactly():
        assert len(data_pages(diff)) <= (0 if is_ours() else QUEUE_PAGES)
    assert overlaid(base.memory.read_bytes(), diff) == base.memory.read_bytes()


def test_nothing_happened_nothing_is_written(paused, base, tmp_path):
    check_is_empty(take(paused, tmp_path, "Diff", "diff").memory, base)
    assert take(paused, tmp_path, "Full", "again").memory.read_bytes() == base.memory.read_bytes()


def test_a_diff_merges_with_a_file_of_the_same_length(paused, base, tmp_path):
    resume(paused.server)
    paused.run("dd if=/dev/urandom of=/data bs=4k count=64 conv=notrunc 2>/dev/null")
    pause(paused.server)
    assert create(paused.server, base.state, base.memory, "Diff").status == 204
    full = take(paused, tmp_path, "Full", "full")
    assert differing(base.memory.read_bytes(), full.memory.read_bytes()) == []


@pytest.mark.parametrize("kind", ["Full", "Diff"])
def test_a_file_of_another_length_is_emptied(paused, base, tmp_path, kind):
    path = tmp_path / "memory"
    path.write_bytes(b"x" * 100_000)
    assert create(paused.server, tmp_path / "state", path, kind).status == 204
    assert path.stat().st_size == SIZE
    if kind == "Full":
        assert path.read_bytes() == base.memory.read_bytes()
    else:
        check_is_empty(path, base)


def test_files_that_can_not_be_written(paused, tmp_path):
    gone = tmp_path / "gone" / "file"
    missing = "No such file or directory (os error 2)"
    assert fault(paused, tmp_path, state=gone) == (
        f"{PREFIX}Cannot perform open on the snapshot backing file: {missing}"
    )
    assert fault(paused, tmp_path, memory=gone) == (
        f"{PREFIX}Cannot perform open on the memory backing file: {missing}"
    )
    assert fault(paused, tmp_path, memory=tmp_path) == (
        f"{PREFIX}Cannot perform open on the memory backing file: Is a directory (os error 21)"
    )


def test_a_diff_that_failed_for_lack_of_space_is_whole_the_next_time(paused, base, tmp_path):
    resume(paused.server)
    paused.run("dd if=/dev/urandom of=/data bs=64k count=64 2>/dev/null")
    pause(paused.server)
    place = tmp_path / "tiny"
    place.mkdir()
    process.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tiny", place], timeout_s=60)
    try:
        said = fault(paused, place)
    finally:
        process.run(["umount", place], timeout_s=60)
    assert said.startswith(f"{PREFIX}Cannot write memory file: ")
    assert said.endswith("No space left on device (os error 28)")
    diff = take(paused, tmp_path, "Diff", "diff")
    full = take(paused, tmp_path, "Full", "full")
    merged = overlaid(base.memory.read_bytes(), diff.memory)
    assert differing(merged, full.memory.read_bytes()) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/balloon", {"amount_mib": 1}),
        ("/drives/told", {"drive_id": "told", "path_on_host": None}),
    ],
    ids=["balloon", "drive"],
)
def test_a_device_that_is_changed_between_two_of_one_pause(paused, base, tmp_path, path, body):
    if "path_on_host" in body:
        body = {**body, "path_on_host": os.fspath(paused.drive)}
    paused.server.done("PATCH", path, body)
    response = create(paused.server, tmp_path / "state", tmp_path / "memory", "Diff")
    if not is_ours():
        assert response.status == 204
        return
    assert "a device was changed since the last snapshot of this pause" in response.fault
    resume(paused.server)
    pause(paused.server)
    take(paused, tmp_path, "Diff", "diff")


def test_the_configuration_stays_as_it_was(paused, tmp_path):
    before = paused.server.get("/vm/config")
    take(paused, tmp_path, "Diff", "diff")
    assert paused.server.get("/vm/config") == before
    assert paused.server.get("/")["state"] == "Paused"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            {"snapshot_path": "/a", "mem_file_path": "/b", "snapshot_type": "Whole"},
            "unknown variant `Whole`, expected `Diff` or `Full`",
        ),
        ({"snapshot_path": "/a"}, "missing field `mem_file_path`"),
        (
            {"snapshot_path": "/a", "mem_file_path": "/b", "version": "1.0"},
            "unknown field `version`, expected one of `snapshot_type`, `snapshot_path`, "
            "`mem_file_path`",
        ),
    ],
)
def test_wrong_bodies(running, body, problem):
    said = running.server.put("/snapshot/create", body).fault
    assert said.startswith(
        f"An error occurred when deserializing the json body of a request: {problem} at line 1"
    )


def test_untracked_memory_is_whole_every_time(kernel, test_initrd, tmp_path):
    with Server(tmp_path) as server:
        guest = boot(server.wait_for_api(), kernel, test_initrd, track_dirty_pages=False)
        pause(server)
        one = take(guest, tmp_path, "Diff", "one")
        two = take(guest, tmp_path, "Diff", "two")
        full = take(guest, tmp_path, "Full", "full")
        for diff in (one, two):
            assert differing(diff.memory.read_bytes(), full.memory.read_bytes()) == []
        resume(server)
        assert digest(guest)


def test_its_files_can_be_read_by_others_as_the_umask_says(paused, tmp_path):
    made = take(paused, tmp_path, "Diff", "diff")
    umask = os.umask(0)
    os.umask(umask)
    for path in (made.state, made.memory):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask
