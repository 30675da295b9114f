"""What may be changed while a guest runs, and that the guest sees it: drives, limits, balloon.

One guest serves all tests here; each leaves it as it found it, but for the files of its drives.
"""

import os
import socket
import time

import pytest

from vmm_guest import BOOT_S
from vmm_server import is_ours, wait_until
from wrennd.linux import process

pytestmark = [pytest.mark.vm, pytest.mark.root]

MIB = 1 << 20
BLOCK = 4096  # busybox's dd reads past the page cache only in whole pages
READ = "dd if=/dev/{} iflag=direct bs=4096 count=1 2>/dev/null"
PATCH_FAILED = "Drive config error: Unable to patch the block device: "
VERIFY = " Please verify the request arguments."
BALLOON = "Balloon update error: Balloon: "


def shown_drive(told, drive_id):
    (found,) = [d for d in told.server.get("/vm/config")["drives"] if d["drive_id"] == drive_id]
    return found


def patch_drive(told, drive_id, **changes):
    told.server.done("PATCH", f"/drives/{drive_id}", {"drive_id": drive_id, **changes})


def fault_of_patch(told, drive_id, body=None, **changes):
    body = {"drive_id": drive_id, **changes} if body is None else body
    return told.server.patch(f"/drives/{drive_id}", body).fault


def seconds_to_read(told, device, block, count):
    """How long the guest takes for so many reads that no cache answers."""
    words = told.run(
        "a=$(cut -d' ' -f1 /proc/uptime)\n"
        f"dd if=/dev/{device} of=/dev/null iflag=direct bs={block} count={count} 2>/dev/null\n"
        "echo $a $(cut -d' ' -f1 /proc/uptime)"
    ).split()
    return float(words[1]) - float(words[0])


# Pause and resume


@pytest.fixture
def ticking(told):
    """The guest prints something all the time."""
    told.tell("while :; do usleep 50000; echo tick; done & echo $! >/ticker")
    told.wait_for("tick\ntick\n")
    yield told
    told.run("kill $(cat /ticker)")


def test_pause_freezes_and_resume_goes_on(ticking):
    server = ticking.server
    for _ in range(2):
        server.done("PATCH", "/vm", {"state": "Paused"})
        assert server.get("/")["state"] == "Paused"
    wait_until(lambda: is_still(ticking), "a console that stands still")
    frozen = ticking.text()
    for _ in range(2):
        server.done("PATCH", "/vm", {"state": "Resumed"})
        assert server.get("/")["state"] == "Running"
    wait_until(lambda: len(ticking.text()) > len(frozen), "more from the guest")


def is_still(told):
    """Ten of the guest's ticks long, nothing is printed."""
    before = told.text()
    time.sleep(0.5)
    return told.text() == before


def test_pause_and_resume_in_one_breath(ticking):
    """The events of a pause are seen only after the resume."""
    with ticking.server.connect() as client:
        for _ in range(3):
            for state in (b"Paused", b"Resumed"):
                body = b'{"state":"' + state + b'"}'
                client.send(b"PATCH /vm HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert [client.receive().status for _ in range(6)] == [204] * 6
    after = ticking.text()
    wait_until(lambda: len(ticking.text()) > len(after), "a guest that still runs")


# Drives


@pytest.mark.parametrize(("drive_id", "device", "size"), [("b", "vdb", 2), ("c", "vdc", 3)])
def test_a_drive_on_another_file(told, tmp_path, drive_id, device, size):
    """Two times, larger and smaller; the guest sees size and content of each."""
    read_only = drive_id == "c"
    before = shown_drive(told, drive_id)
    for name, file_size in (("first", size * MIB), ("second", MIB // 2)):
        path = tmp_path / name
        path.write_bytes(name.encode().ljust(BLOCK) + bytes(file_size - BLOCK))
        patch_drive(told, drive_id, path_on_host=os.fspath(path))
        found = told.run(
            f"until [ $(blockdev --getsize64 /dev/{device}) = {file_size} ]\n"
            "do usleep 10000; done\n"
            f"{READ.format(device)}\n"
            f"echo; cat /sys/block/{device}/ro"
        ).split()
        assert found == [name, "1" if read_only else "0"]
        assert shown_drive(told, drive_id) == {**before, "path_on_host": os.fspath(path)}


def test_writes_go_to_the_new_file_and_the_old_is_closed(told, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        path.write_bytes(bytes(MIB))
    write = "printf %-4096s {} | dd of=/dev/vdb oflag=direct bs=4096 2>/dev/null"
    patch_drive(told, "b", path_on_host=os.fspath(old))
    told.run(write.format("one"))
    patch_drive(told, "b", path_on_host=os.fspath(new))
    told.run(write.format("two"))
    assert old.read_bytes()[:3] == b"one"
    assert new.read_bytes()[:3] == b"two"


def test_a_drive_of_a_paused_guest_on_another_file(told, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"while paused".ljust(BLOCK))
    told.server.done("PATCH", "/vm", {"state": "Paused"})
    patch_drive(told, "c", path_on_host=os.fspath(path))
    assert told.server.get("/")["state"] == "Paused"
    told.server.done("PATCH", "/vm", {"state": "Resumed"})
    assert told.run(READ.format("vdc")) == "while paused"


def test_a_drive_that_can_not_be_patched_stays(told, tmp_path):
    missing = os.fspath(tmp_path / "nothing")
    before = told.server.get("/vm/config")
    assert fault_of_patch(told, "b", path_on_host=missing) == (
        f"{PATCH_FAILED}Block: Virtio backend error: Error manipulating the backing file: "
        f"No such file or directory (os error 2) {missing}{VERIFY}"
    )
    assert fault_of_patch(told, "nobody", path_on_host=missing) == (
        f"{PATCH_FAILED}Failed perform action on device: Device not found{VERIFY}"
    )
    assert fault_of_patch(told, "b", {"drive_id": "b"}) == (
        f"{PATCH_FAILED}Block: Running method expected different backend.{VERIFY}"
    )
    assert told.server.get("/vm/config") == before


# Limits. Firecracker passes two buckets at once after a pause: it fills one up when it is empty.


OPS = {"ops": {"size": 4, "refill_time": 200}}
NO_OPS = {"ops": {"size": 0, "refill_time": 0}}


def takes_40_requests_their_time(told, device):
    """8 at once, and 20 a second: 1.6 s at least."""
    return seconds_to_read(told, device, BLOCK, 40) > 1.5


def test_a_limit_from_the_start_is_kept(told):
    assert takes_40_requests_their_time(told, "vdd")


def test_a_limit_comes_and_goes_while_the_guest_runs(told, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * MIB))
    patch_drive(told, "b", path_on_host=os.fspath(path))
    bandwidth = {"size": MIB // 16, "refill_time": 100}
    patch_drive(told, "b", rate_limiter={"bandwidth": bandwidth})
    assert shown_drive(told, "b")["rate_limiter"] == {
        "bandwidth": {**bandwidth, "one_time_burst": None},
        "ops": None,
    }
    assert seconds_to_read(told, "vdb", 1 << 16, 20) > 1.7  # 2 at once, and 10 a second
    patch_drive(told, "b", rate_limiter=OPS)
    assert shown_drive(told, "b")["rate_limiter"]["bandwidth"]["size"] == MIB // 16
    assert takes_40_requests_their_time(told, "vdb")
    patch_drive(told, "b", rate_limiter={"bandwidth": NO_OPS["ops"], **NO_OPS})
    assert shown_drive(told, "b")["rate_limiter"] is None


@pytest.mark.parametrize("device", ["if=/dev/vdb of=/dev/null i", "if=/dev/zero of=/dev/vdb o"])
def test_a_limit_that_is_lifted_holds_nobody_back(told, tmp_path, device):
    """At 64 bytes a second it would take 6 hours."""
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * MIB))
    slow = {"bandwidth": {"size": 64, "refill_time": 1000}}
    patch_drive(told, "b", path_on_host=os.fspath(path), rate_limiter=slow)
    number = told.tell(f"echo begun; dd {device}flag=direct bs=65536 count=20 2>/dev/null")
    told.wait_for("begun")
    patch_drive(told, "b", rate_limiter={"bandwidth": NO_OPS["ops"]})
    assert told.printed(number) == "begun"


def test_a_limit_outlives_another_file(told, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(MIB))
    patch_drive(told, "b", path_on_host=os.fspath(path), rate_limiter=OPS)
    patch_drive(told, "b", path_on_host=os.fspath(path))
    assert takes_40_requests_their_time(told, "vdb")
    patch_drive(told, "b", rate_limiter=NO_OPS)


NETWORK = 4 * (os.getpid() % 60)  # of 192.0.2.0/24, which nobody has


@pytest.fixture
def wire(told):
    """eth1 has an address, and the other end of its tap another one, with a listener on it."""
    host, guest, tap = f"192.0.2.{NETWORK + 1}", f"192.0.2.{NETWORK + 2}", told.taps[1]
    process.run(["ip", "addr", "add", f"{host}/30", "dev", tap], timeout_s=10)
    process.run(["ip", "link", "set", tap, "up"], timeout_s=10)
    told.run(f"ip link set eth1 up; ip addr add {guest}/30 dev eth1")
    with socket.create_server((host, 0)) as listener:
        listener.settimeout(BOOT_S)
        yield Wire(told, listener)
    told.run(f"ip addr del {guest}/30 dev eth1")
    process.run(["ip", "addr", "del", f"{host}/30", "dev", tap], timeout_s=10)


class Wire:
    def __init__(self, told, listener):
        self._told, self._listener = told, listener

    def patch(self, **changes):
        self._told.server.done("PATCH", "/network-interfaces/eth1", {"iface_id": "eth1", **changes})

    def shown(self, direction):
        (found,) = [
            i
            for i in self._told.server.get("/vm/config")["network-interfaces"]
            if i["iface_id"] == "eth1"
        ]
        return found[direction]

    def seconds(self, from_guest, to_guest, size, once_begun=lambda: None):
        """How long the guest takes to send or get `size` bytes over TCP."""
        address, port = self._listener.getsockname()
        number = self._told.tell(
            "a=$(cut -d' ' -f1 /proc/uptime)\n"
            f"head -c {size if from_guest else 0} /dev/zero | nc {address} {port} | wc -c\n"
            "echo took $a $(cut -d' ' -f1 /proc/uptime)"
        )
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(BOOT_S)
            once_begun()
            if to_guest:
                connection.sendall(bytes(size))
                connection.shutdown(socket.SHUT_WR)
            received = 0
            while data := connection.recv(65536):
                received += len(data)
        assert received == (size if from_guest else 0)
        words = self._told.printed(number).split()
        assert words[0] == str(size if to_guest else 0)
        return float(words[-1]) - float(words[-2])


@pytest.mark.parametrize(
    ("direction", "from_guest"), [("tx_rate_limiter", True), ("rx_rate_limiter", False)]
)
def test_limits_of_a_network_interface_are_kept(wire, direction, from_guest):
    """64 KiB at once, and 320 a second: 640 take 1.8 s at least."""
    size = 640 << 10
    bandwidth = {"size": size // 20, "refill_time": 100}
    before = wire.shown(direction)
    wire.patch(**{direction: {"bandwidth": bandwidth}})
    assert wire.shown(direction)["bandwidth"] == {**bandwidth, "one_time_burst": None}
    assert wire.seconds(from_guest, not from_guest, size) > 1.7
    wire.patch(**{direction: before})
    assert wire.shown(direction) == before


@pytest.mark.parametrize(
    ("direction", "from_guest"), [("tx_rate_limiter", True), ("rx_rate_limiter", False)]
)
def test_limits_of_a_network_interface_that_are_lifted(wire, direction, from_guest):
    """At 1 KiB a second it would take 10 minutes."""
    before = wire.shown(direction)
    wire.patch(**{direction: {"bandwidth": {"size": 1 << 10, "refill_time": 1000}}})

    def lift():
        wire.patch(**{direction: {"bandwidth": {"size": 0, "refill_time": 1}}})
        assert wire.shown(direction) is None

    wire.seconds(from_guest, not from_guest, 640 << 10, once_begun=lift)
    wire.patch(**{direction: before})


def test_interfaces_that_can_not_be_patched(told):
    server = told.server
    fault = server.patch("/network-interfaces/eth9", {"iface_id": "eth9"}).fault
    assert fault == (
        "Network config error: Unable to update the net device: Failed perform action on device: "
        "Device not found"
    )
    limits = {"tx_rate_limiter": {"ops": {"size": 1 << 30, "refill_time": 1000}}}
    response = server.patch("/network-interfaces/eth0", {"iface_id": "eth0", **limits})
    if is_ours():
        assert response.fault == (
            "Network config error: a rate limiter on a network interface that was started without "
            "one is not supported by the QEMU-based VMM."
        )
    else:
        assert response.status == 204
    server.done("PATCH", "/network-interfaces/eth0", {"iface_id": "eth0"})


# The balloon


def statistics(told):
    return told.server.get("/balloon/statistics")


def inflate(told, amount_mib):
    told.server.done("PATCH", "/balloon", {"amount_mib": amount_mib})
    wait_until(lambda: statistics(told)["actual_mib"] == amount_mib, f"{amount_mib} MiB", 60)


def free_kib(told):
    return int(told.run("grep ^MemFree: /proc/meminfo").split()[1])


def test_the_balloon_takes_memory_and_gives_it_back(told):
    before = free_kib(told)
    inflate(told, 32)
    assert told.server.get("/balloon")["amount_mib"] == 32
    assert told.server.get("/vm/config")["balloon"] == told.server.get("/balloon")
    shown = statistics(told)
    assert (shown["target_mib"], shown["target_pages"], shown["actual_pages"]) == (32, 8192, 8192)
    assert before - free_kib(told) > 24 << 10
    inflate(told, 0)
    assert before - free_kib(told) < 8 << 10


def test_what_the_guest_says_of_its_memory(told):
    wait_until(lambda: "free_memory" in statistics(told), "statistics of the guest", 60)
    shown = statistics(told)
    total_kib = int(told.run("grep ^MemTotal: /proc/meminfo").split()[1])
    assert shown["total_memory"] == total_kib << 10
    assert 0 < shown["free_memory"] < shown["total_memory"]
    assert shown["minor_faults"] > 0


def test_the_interval_of_statistics_may_change_but_not_end(told):
    server = told.server
    server.done("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 2})
    assert server.get("/balloon")["stats_polling_interval_s"] == 2
    fault = server.patch("/balloon/statistics", {"stats_polling_interval_s": 0}).fault
    assert fault == f"{BALLOON}Statistics cannot be enabled/disabled after activation."
    server.done("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 1})


def test_balloons_that_can_not_be(told):
    server = told.server
    fault = server.patch("/balloon", {"amount_mib": 129}).fault
    assert fault == f"{BALLOON}Requested memory should be less than 129MiB"
    hinting = f"{BALLOON}Attempting to use hinting when not enabled"
    assert server.request("GET", "/balloon/hinting/status").fault == hinting
    assert server.request("PATCH", "/balloon/hinting/start").fault == hinting
    assert server.request("PATCH", "/balloon/hinting/stop").fault == hinting
    assert server.get("/balloon")["amount_mib"] == 0
