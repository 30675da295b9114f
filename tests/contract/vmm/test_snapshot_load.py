"""`/snapshot/load`: one guest, frozen once, restored in many ways. A load that fails is the end."""

import os
import re
import shutil
import signal
from contextlib import ExitStack

import pytest

from leaks import LeakCheck
from page_handler import PageHandler
from vmm_server import Server, is_ours
from vmm_snapshots import (
    DATA,
    MEM_MIB,
    Snapshot,
    boot,
    by_id,
    continued,
    counts_exactly,
    create,
    data_pages,
    differing,
    digest,
    overlaid,
    pause,
    restored,
    resume,
    sha,
    take,
)
from wrennd.linux import process

pytestmark = [pytest.mark.vm, pytest.mark.root]

PREFIX = "Load snapshot error: "
FAILED = f"{PREFIX}Failed to restore from snapshot: "
STATE = f"{FAILED}Failed to get snapshot state from file: "
AFTER = "The requested operation is not supported after starting the microVM."


@pytest.fixture(scope="module")
def frozen(vmm_under_test, kernel, test_initrd, tmp_path_factory):
    """A Full snapshot, what its guest's data are, and its configuration. /dev/vdb is a drive."""
    check = LeakCheck()
    directory = tmp_path_factory.mktemp("frozen")
    disk = directory / "disk.img"
    disk.write_bytes(b"disk" * 1024)
    with Server(directory) as server:
        server.wait_for_api()
        guest = boot(server, kernel, test_initrd, drives=[disk])
        data = digest(guest)
        pause(server)
        made = take(guest, directory, name="frozen")
        config = server.get("/vm/config")
    for path in (made.state, made.memory):
        path.chmod(0o444)
    before = sha(made.state), sha(made.memory)
    yield Frozen(made, data, config, disk)
    assert (sha(made.state), sha(made.memory)) == before, "restored guests change no snapshot"
    check.finish()


class Frozen:
    def __init__(self, snapshot, data, config, disk):
        self.snapshot, self.data, self.config, self.disk = snapshot, data, config, disk


@pytest.fixture
def backend(request, frozen, tmp_path):
    """The arguments of `restored` for a backend."""
    with ExitStack() as held:
        if request.param == "File":
            yield {}
        else:
            image = frozen.snapshot.memory.read_bytes()
            yield {"handler": held.enter_context(PageHandler(tmp_path / "uffd.sock", image))}


both = pytest.mark.parametrize("backend", ["File", "Uffd"], indirect=True)


@pytest.mark.smoke
@both
def test_the_guest_goes_on_in_another_vmm(frozen, backend, tmp_path):
    with restored(tmp_path / "vmm", frozen.snapshot, **backend) as guest:
        assert guest.server.get("/")["state"] == "Running"
        assert by_id(guest.server.get("/vm/config")) == by_id(frozen.config)
        assert digest(guest) == frozen.data
        assert guest.run("head -c 4 /dev/vdb") == "disk"
        for method, path, body in (
            ("PUT", "/actions", {"action_type": "InstanceStart"}),
            ("PUT", "/boot-source", {"kernel_image_path": "/x"}),
            ("PUT", "/snapshot/load", frozen.snapshot.body()),
        ):
            assert guest.server.request(method, path, body).fault == AFTER


@both
def test_it_waits_until_it_is_told_to_go_on(frozen, backend, tmp_path):
    vmm = tmp_path / "vmm"
    more = {"resume_vm": False, "track_dirty_pages": False}
    with restored(vmm, frozen.snapshot, **backend, **more) as guest:
        assert guest.server.get("/")["state"] == "Paused"
        assert guest.server.get("/machine-config")["track_dirty_pages"] is False
        assert not guest.console.exists() or guest.text() == ""
        # Not having run, it is what it was.
        again = take(guest, tmp_path, "Full", "again")
        memory = frozen.snapshot.memory.read_bytes()
        assert len(differing(memory, again.memory.read_bytes())) <= 4, "pages of its devices"
        resume(guest.server)
        assert digest(guest) == frozen.data


@pytest.mark.parametrize("tracking", ["exact", pytest.param("populated", marks=pytest.mark.long)])
@both
def test_cycles(frozen, backend, tracking, tmp_path, request):
    """Restored, changed, saved, again and again, each time from what the Diffs make."""
    if tracking == "populated":
        request.getfixturevalue("ours")
    extra = ("--dirty-pages", tracking) if tracking == "populated" else ()
    snapshot, data = frozen.snapshot, frozen.data
    for turn in range(3):
        base = snapshot.memory.read_bytes()
        with ExitStack() as held:
            how = {}
            if backend:
                handler = PageHandler(tmp_path / f"uffd{turn}", base)
                how = {"handler": held.enter_context(handler)}
            guest = held.enter_context(restored(tmp_path / f"v{turn}", snapshot, *extra, **how))
            assert digest(guest) == data
            guest.run("dd if=/dev/urandom of=/data bs=4k count=9 seek=7 conv=notrunc 2>/dev/null")
            data = digest(guest)
            pause(guest.server)
            diff = take(guest, tmp_path, "Diff", f"diff{turn}")
            merged = overlaid(base, diff.memory)
            if tracking == "exact" and counts_exactly():
                # KVM maps what a handler installed for writing, also when it is only read, and
                # counts that (Linux 6.1); so does a Firecracker.
                share = 16 if is_ours() or not how else 8
                assert len(data_pages(diff.memory)) < (MEM_MIB << 8) / share
            if turn == 2:
                full = take(guest, tmp_path, "Full", "full")
                assert differing(merged, full.memory.read_bytes()) == []
        whole = tmp_path / f"whole{turn}"
        whole.write_bytes(merged)
        snapshot = diff.with_memory(whole)


def test_a_full_one_may_replace_the_file_that_it_was_restored_from(frozen, tmp_path):
    own = tmp_path / "memory"
    shutil.copyfile(frozen.snapshot.memory, own)
    snapshot = frozen.snapshot.with_memory(own)
    with restored(tmp_path / "one", snapshot) as guest:
        guest.run("dd if=/dev/urandom of=/data bs=4k count=9 conv=notrunc 2>/dev/null")
        data = digest(guest)
        pause(guest.server)
        assert create(guest.server, tmp_path / "state", own, "Full").status == 204
        resume(guest.server)
        assert digest(guest) == data
        number = guest.number - 1
    again = Snapshot(tmp_path / "state", own, snapshot.drive, number)
    with restored(tmp_path / "two", again) as guest:
        assert digest(guest) == data


def test_two_of_one_file_don_t_see_each_other(frozen, tmp_path):
    # Both take orders from one drive, so one stands still while the other is told something.
    with (
        restored(tmp_path / "one", frozen.snapshot) as one,
        restored(tmp_path / "two", frozen.snapshot) as two,
    ):
        pause(two.server)
        one.run(f"dd if=/dev/zero of={DATA} bs=4k count=9 conv=notrunc 2>/dev/null")
        ones = digest(one)
        pause(one.server)
        two.number = one.number
        resume(two.server)
        assert digest(two) == frozen.data
        two.run(f"dd if=/dev/zero of={DATA} bs=4k count=9 seek=9 conv=notrunc 2>/dev/null")
        twos = digest(two)
        pause(two.server)
        one.number = two.number
        resume(one.server)
        assert digest(one) == ones
        assert len({frozen.data, ones, twos}) == 3


# Loads that are no loads


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 128}),
        ("PATCH", "/machine-config", {"vcpu_count": 1}),
        ("PUT", "/boot-source", {"kernel_image_path": "/none"}),
        ("PUT", "/drives/a", {"drive_id": "a", "is_root_device": False, "path_on_host": "/none"}),
        ("PUT", "/network-interfaces/a", {"iface_id": "a", "host_dev_name": "none"}),
        ("PUT", "/balloon", {"amount_mib": 0, "deflate_on_oom": False}),
        ("PUT", "/entropy", {}),
    ],
)
def test_not_once_something_to_boot_was_tried(server, frozen, method, path, body):
    server.request(method, path, body)
    assert server.put("/snapshot/load", frozen.snapshot.body()).fault == (
        f"{PREFIX}Loading a microVM snapshot not allowed after configuring boot-specific resources."
    )
    assert server.get("/")["state"] == "Not started"


def test_what_is_no_boot_may_come_first(server, frozen, tmp_path):
    server.done("PUT", "/logger", {"log_path": str(tmp_path / "log"), "level": "Debug"})
    server.done("PUT", "/metrics", {"metrics_path": str(tmp_path / "metrics")})
    guest = continued(server, frozen.snapshot)
    server.done("PUT", "/snapshot/load", frozen.snapshot.body())
    assert digest(guest) == frozen.data
    assert "'load snapshot' API request took " in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"mem_file_path": "/b"},
            "too many fields: either `mem_backend` or `mem_file_path` exclusively is required.",
        ),
        (
            {"mem_backend": None},
            "missing field: either `mem_backend` or `mem_file_path` is required.",
        ),
        (
            {"mem_backend": {"backend_type": "Foo", "backend_path": "/b"}},
            "unknown variant `Foo`, expected `File` or `Uffd` at line 1 column ",
        ),
        ({"mem_backend": {"backend_type": "File"}}, "missing field `backend_path` at line 1 "),
        ({"resume_vm": "yes"}, 'invalid type: string "yes", expected a boolean at line 1 '),
        ({"huge": 1}, "unknown field `huge`, expected one of `snapshot_path`, `mem_file_path`, "),
    ],
)
def test_wrong_bodies_end_nothing(server, frozen, change, problem):
    body = {key: value for key, value in frozen.snapshot.body(**change).items()}
    said = server.put("/snapshot/load", body).fault
    assert said.startswith(
        f"An error occurred when deserializing the json body of a request: {problem}"
    )
    assert server.get("/")["state"] == "Not started"


# Loads that fail


def refused(server, body):
    """The refusal of a load, after which there is no VMM any more."""
    response = server.put("/snapshot/load", body)
    assert server.exit_code() == 1
    return response.fault


def changed_copy(path, change):
    data = bytearray(path.read_bytes())
    return bytes(change(data))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: b"", "IO Error: File too short to contain CRC"),
        (lambda data: data[:7], "IO Error: File too short to contain CRC"),
    ],
)
def test_a_state_that_is_none(server, frozen, tmp_path, change, problem):
    assert said_of_changed(server, frozen, tmp_path, change) == problem


def said_of_changed(server, frozen, tmp_path, change):
    path = tmp_path / "state"
    path.write_bytes(changed_copy(frozen.snapshot.state, change))
    said = refused(server, frozen.snapshot.body(snapshot_path=str(path)))
    before, told, problem = said.partition("Failed to load snapshot state from file: ")
    assert (before, bool(told)) == (STATE, True)
    return problem


def test_a_state_that_begins_otherwise(server, frozen, tmp_path):
    """Of a Firecracker's (1.16.1) the first eight bytes are not just the magic value's."""
    said = said_of_changed(server, frozen, tmp_path, lambda data: b"\x00" * 8 + data[8:])
    assert re.fullmatch(r"Magic value does not match arch: \d+", said)
    assert not is_ours() or said.endswith(": 0")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data[:-9], "CRC64 validation failed"),
        (lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:], "CRC64 validation failed"),
        (lambda data: data[:8] + b"\x09" + data[9:], "Invalid data version: 9.0.0"),
        (lambda data: bytes(10_000_001), "Snapshot size exceeds limit of 10000000 bytes"),
    ],
)
def test_a_state_of_ours_that_is_damaged(server, ours, frozen, tmp_path, change, problem):
    test_a_state_that_is_none(server, frozen, tmp_path, change, problem)


def test_a_state_that_is_not_there(server, frozen):
    said = refused(server, frozen.snapshot.body(snapshot_path="/none"))
    assert said == (f"{STATE}Failed to open snapshot file: No such file or directory (os error 2)")


FILE = f"{FAILED}Failed to load guest memory: Error creating guest memory from file: "


def test_a_memory_file_that_is_not_there(server, frozen, tmp_path):
    body = frozen.snapshot.body("File", tmp_path / "none")
    assert refused(server, body) == (
        f"{FILE}Failed to load guest memory: No such file or directory (os error 2)"
    )


def test_a_memory_file_that_is_too_short(server, frozen, tmp_path):
    short = tmp_path / "short"
    short.write_bytes(bytes((MEM_MIB << 20) - 4096))
    said = refused(server, frozen.snapshot.body("File", short))
    assert said == (
        f"{FILE}Failed to restore guest memory: Total sum of memory regions exceeds largest "
        "possible file offset"
    )


@pytest.fixture
def powerless(leak_check, tmp_path):
    """A VMM of our uid, but bound to the rights of files."""
    wrapper = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    with Server(tmp_path, wrapper=wrapper) as running:
        yield running.wait_for_api()


@pytest.mark.parametrize("which", ["state", "memory", "disk"])
def test_files_that_it_may_not_read(powerless, frozen, tmp_path, which):
    denied = "Permission denied (os error 13)"
    closed = tmp_path / "closed"
    closed.touch(mode=0)
    body = frozen.snapshot.body()
    if which == "state":
        body["snapshot_path"] = str(closed)
    elif which == "memory":
        body["mem_backend"]["backend_path"] = str(closed)
    mode = frozen.disk.stat().st_mode
    try:
        if which == "disk":
            frozen.disk.chmod(0)
        said = refused(powerless, body)
    finally:
        frozen.disk.chmod(mode)
    if which == "state":
        assert said == f"{STATE}Failed to open snapshot file: {denied}"
    elif which == "memory":
        assert said == f"{FILE}Failed to load guest memory: {denied}"
    else:
        assert said.startswith(FAILED)
        assert f"Error manipulating the backing file: {denied}" in said


def test_it_may_not_write_where_it_is_told_to(powerless, frozen, tmp_path):
    guest = continued(powerless, frozen.snapshot)
    powerless.done("PUT", "/snapshot/load", frozen.snapshot.body())
    pause(powerless)
    closed = tmp_path / "closed"
    closed.touch(mode=0o444)
    denied = "Permission denied (os error 13)"
    for state, memory, which in (
        (closed, tmp_path / "m", "snapshot"),
        (tmp_path / "s", closed, "memory"),
    ):
        assert create(powerless, state, memory, "Full").fault == (
            f"Create snapshot error: Cannot perform open on the {which} backing file: {denied}"
        )
    resume(powerless)
    assert digest(guest) == frozen.data


def test_a_drive_that_is_gone(server, frozen, tmp_path):
    moved = frozen.disk.rename(tmp_path / "elsewhere")
    try:
        said = refused(server, frozen.snapshot.body())
    finally:
        moved.rename(frozen.disk)
    assert said.startswith(FAILED)
    assert "No such file or directory (os error 2)" in said


def test_a_vsock_override_without_a_vsock(server, frozen):
    body = frozen.snapshot.body(vsock_override={"uds_path": "/x"})
    assert refused(server, body) == f"{STATE}Unknown Vsock Device."


def test_a_tap_for_an_interface_that_is_none(server, frozen):
    taps = [{"iface_id": "eth0", "host_dev_name": "tap0"}]
    body = frozen.snapshot.body(network_overrides=taps)
    assert refused(server, body) == f"{STATE}Unknown Network Device."


@pytest.mark.parametrize("old", ["mem_file_path", "enable_diff_snapshots"])
def test_older_names_still_do_and_are_told_to_be_old(server, frozen, old):
    body = frozen.snapshot.body(track_dirty_pages=False)
    if old == "mem_file_path":
        del body["mem_backend"]
        body[old] = str(frozen.snapshot.memory)
    else:
        body[old] = True
    guest = continued(server, frozen.snapshot)
    response = server.put("/snapshot/load", body)
    assert (response.status, "Deprecation" in response.headers) == (204, True)
    assert digest(guest) == frozen.data
    is_tracked = server.get("/machine-config")["track_dirty_pages"]
    assert is_tracked is (old == "enable_diff_snapshots")
    assert "Deprecation" not in server.patch("/vm", {"state": "Paused"}).headers


def test_on_another_tap(server, kernel, test_initrd, taps, tmp_path):
    """What the guest sends comes out of the tap that it was moved to."""
    interface = {"iface_id": "eth0", "host_dev_name": taps[0], "guest_mac": "06:00:00:00:00:01"}
    guest = boot(server, kernel, test_initrd, interfaces=[interface])
    pause(server)
    snapshot = take(guest, tmp_path, name="s")
    server.process.signal(signal.SIGKILL)
    server.exit_code()
    overrides = [{"iface_id": "eth0", "host_dev_name": taps[1]}]
    with restored(tmp_path / "vmm", snapshot, network_overrides=overrides) as moved:
        (shown,) = moved.server.get("/vm/config")["network-interfaces"]
        assert shown["host_dev_name"] == taps[1]
        assert moved.run("cat /sys/class/net/eth0/address") == "06:00:00:00:00:01"
        for name in taps:
            process.run(["ip", "link", "set", name, "up"], timeout_s=10)
        received = [packets(name) for name in taps]
        setup = "ip link set eth0 up; ip addr add 10.9.9.1/24 dev eth0"
        moved.run(f"{setup}; ping -c 1 -W 1 10.9.9.2 >/dev/null || :")
        now = [packets(name) for name in taps]
        assert now[0] == received[0]
        assert now[1] > received[1]


def packets(tap):
    with open(f"/sys/class/net/{tap}/statistics/rx_packets") as file:  # noqa: PTH123
        return int(file.read())


def test_a_drive_that_was_changed_while_it_ran(frozen, tmp_path):
    """The snapshot is of the file that the drive was on when it was taken."""
    other = tmp_path / "other.img"
    other.write_bytes(b"otherdisk".ljust(1 << 20, b"."))
    with restored(tmp_path / "one", frozen.snapshot) as guest:
        guest.server.done("PATCH", "/drives/a", {"drive_id": "a", "path_on_host": os.fspath(other)})
        assert guest.run("head -c 9 /dev/vdb") == "otherdisk"
        pause(guest.server)
        made = take(guest, tmp_path, name="s")
    with restored(tmp_path / "two", made) as guest:
        blocks = other.stat().st_size // 512
        assert guest.run("head -c 9 /dev/vdb; cat /sys/block/vdb/size") == f"otherdisk{blocks}"
