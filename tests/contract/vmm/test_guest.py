"""With a guest: what the start does, pause and resume, the console, and how it all ends."""

import json
import os
import signal
from pathlib import Path

import pytest

from vmm_guest import BOOT_S, boot_source
from vmm_server import Server, wait_until
from wrennd.linux import process

pytestmark = pytest.mark.vm

AFTER = "The requested operation is not supported after starting the microVM."


def wait_for(log, words, server):
    def is_there():
        assert server.process.exit_code is None, server.text()
        return log.exists() and words in log.read_text(errors="replace")

    wait_until(is_there, f"{words!r} on the console", BOOT_S)


def ended(server):
    wait_until(lambda: server.process.exit_code is not None, "the end of the VMM", BOOT_S)
    return server.exit_code()


def test_a_guest_boots_and_its_reboot_is_the_end(server, guest, start, tmp_path):
    """Metrics are written at the start and at the end."""
    metrics = tmp_path / "metrics"
    server.done("PUT", "/metrics", {"metrics_path": str(metrics)})
    log = guest(server, "none")
    start(server)
    assert server.get("/")["state"] == "Running"
    assert ended(server) == 0
    assert "READY cpus=1" in log.read_text()
    assert len(metrics.read_text().splitlines()) >= 2


@pytest.mark.root
def test_devices_are_what_was_asked_for(server, guest, start, disk, tmp_path, taps):
    read_only = tmp_path / "ro.img"
    read_only.write_bytes(b"other" + bytes(1 << 20))
    limits = {"bandwidth": {"size": 1 << 20, "refill_time": 100}}
    server.done(
        "PUT",
        "/drives/a",
        {"drive_id": "a", "is_root_device": False, "path_on_host": str(disk)},
    )
    server.done(
        "PUT",
        "/drives/b",
        {
            "drive_id": "b",
            "is_root_device": False,
            "is_read_only": True,
            "cache_type": "Writeback",
            "path_on_host": str(read_only),
            "rate_limiter": limits,
        },
    )
    server.done(
        "PUT",
        "/network-interfaces/eth0",
        {
            "iface_id": "eth0",
            "host_dev_name": taps[0],
            "guest_mac": "06:00:00:00:00:01",
            "mtu": 1400,
        },
    )
    server.done("PUT", "/entropy", {"rate_limiter": limits})
    log = guest(server, "devices", vcpus=2)
    start(server)
    assert ended(server) == 0
    text = log.read_text()
    assert "READY cpus=2" in text
    assert "vdb ro=1 other" in text
    assert "mac=06:00:00:00:00:01" in text
    assert "mtu=1400" in text
    assert "rng=virtio_rng" in text
    assert "clock=tsc" in text or "clock=kvm-clock" in text
    assert disk.read_bytes().startswith(b"written by the guest")


def test_phases_once_it_runs(server, guest, start, any_kernel, disk, tmp_path):
    guest(server, "idle")
    before = server.get("/vm/config")
    start(server)
    assert server.get("/vm/config") == before
    for method, path, body in (
        ("PUT", "/actions", {"action_type": "InstanceStart"}),
        ("PUT", "/boot-source", {"kernel_image_path": str(any_kernel)}),
        ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 128}),
        ("PATCH", "/machine-config", {"vcpu_count": 1}),
        ("PUT", "/entropy", {}),
        ("PUT", "/serial", {}),
        ("PUT", "/logger", {"level": "Info"}),
        ("PUT", "/metrics", {"metrics_path": str(tmp_path / "m")}),
        ("PUT", "/balloon", {"amount_mib": 1, "deflate_on_oom": True}),
        ("PUT", "/mmds/config", {"network_interfaces": []}),
        ("PUT", "/vsock", {"guest_cid": 3, "uds_path": "x"}),
        ("PUT", "/hotplug/memory", {"total_size_mib": 1024}),
        ("PUT", "/cpu-config", {}),
    ):
        assert server.request(method, path, body).fault == AFTER, path
    drive = {"drive_id": "x", "is_root_device": False, "path_on_host": str(disk)}
    assert server.put("/drives/x", drive).fault == "PCI is not enabled"
    interface = {"iface_id": "x", "host_dev_name": "t"}
    assert server.put("/network-interfaces/x", interface).fault == "PCI is not enabled"
    fault = server.patch("/drives/x", {"drive_id": "x", "path_on_host": "/x"}).fault
    assert fault.startswith("Drive config error: Unable to patch the block device: ")
    assert server.get("/machine-config")["mem_size_mib"] == 128
    for method, path, body in (
        ("GET", "/mmds", None),
        ("PUT", "/mmds", {}),
        ("PATCH", "/mmds", {}),
    ):
        fault = server.request(method, path, body).fault
        assert fault == "MMDS error: The MMDS data store is not initialized.", "not served"
    for method, path, body, prefix in (
        ("GET", "/balloon", None, "Internal VMM error: "),
        ("GET", "/balloon/statistics", None, "Internal VMM error: "),
        ("PATCH", "/balloon", {"amount_mib": 1}, "Balloon update error: "),
        ("PATCH", "/balloon/hinting/stop", None, "Balloon update error: "),
    ):
        fault = server.request(method, path, body).fault
        assert fault == f"{prefix}Failed perform action on device: Device not found", path


def test_ctrl_alt_del_asks_the_guest_to_end(server, guest, start):
    log = guest(server, "button")
    start(server)
    wait_for(log, "LISTENING", server)
    server.done("PUT", "/actions", {"action_type": "SendCtrlAltDel"})
    assert ended(server) == 0


def test_metrics_on_demand(server, guest, start, tmp_path):
    path = tmp_path / "metrics"
    server.done("PUT", "/metrics", {"metrics_path": str(path)})
    guest(server, "idle")
    start(server)
    server.done("PATCH", "/vm", {"state": "Paused"})
    for _ in range(2):
        server.done("PUT", "/actions", {"action_type": "FlushMetrics"})
    start, first, second = [json.loads(line) for line in path.read_text().splitlines()]
    assert start["api_server"]["process_startup_time_us"] >= 0
    assert first["latencies_us"]["pause_vm"] > 0
    assert start["put_api_requests"] != second["put_api_requests"]


def test_a_flood_on_the_console_stays_small(server, ours, guest, start):
    log = guest(server, "flood")
    log.write_bytes(bytes((1 << 20) - (100 << 10)))  # emulated serial ports are slow
    start(server)
    tops = [log.stat().st_size]
    # Until the older half went once: then the file is smaller than it was.
    wait_until(lambda: tops.append(log.stat().st_size) or tops[-1] < tops[-2], "a cut", BOOT_S)
    assert max(tops) <= 1 << 20
    assert server.get("/")["state"] == "Running"
    server.done("PATCH", "/vm", {"state": "Paused"})


@pytest.mark.parametrize("keeps_reader", [True, False])
def test_a_console_that_nobody_reads(leak_check, ours, guest, start, tmp_path, keeps_reader):
    """Whether the reader sleeps or is gone: the guest runs on."""
    reader, writer = os.pipe()
    try:
        metrics = tmp_path / "metrics"
        with Server(tmp_path, "--metrics-path", str(metrics), stdout=writer) as server:
            server.wait_for_api()
            if not keeps_reader:
                os.close(reader)
                reader = -1
            guest(server, "flood", console=False)
            start(server)

            def dropped():
                server.done("PUT", "/actions", {"action_type": "FlushMetrics"})
                last = json.loads(metrics.read_text().splitlines()[-1])
                return last["uart"]["missed_write_count"] > 0

            wait_until(dropped, "output that is dropped", BOOT_S)
            wait_until(dropped, "still more output", BOOT_S)
            assert server.process.exit_code is None
    finally:
        os.close(writer)
        if reader >= 0:
            os.close(reader)


def test_the_end_of_qemu_is_ours(server, ours, guest, start):
    guest(server, "idle")
    start(server)
    os.kill(server.qemu_pid(), signal.SIGKILL)
    assert ended(server) == 1
    assert "QEMU was killed by signal 9" in server.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_our_end_is_qemus(server, ours, guest, start, number):
    guest(server, "idle")
    start(server)
    pid = server.qemu_pid()
    started = process.start_time(pid)
    server.process.signal(number)
    assert server.exit_code() == -number
    wait_until(lambda: not process.is_alive(pid, started), "the end of QEMU")


def test_qemu_told_to_end_is_no_shutdown_of_the_guest(server, ours, guest, start):
    guest(server, "idle")
    start(server)
    os.kill(server.qemu_pid(), signal.SIGTERM)
    assert ended(server) == 1


def test_memory_is_anonymous_and_the_sandbox_is_on(server, ours, guest, start):
    guest(server, "idle")
    start(server)
    pid = server.qemu_pid()
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    ram = [line.split() for line in maps if size_of(line) == 128 << 20]
    assert [(fields[1], len(fields)) for fields in ram] == [("rw-p", 5)]
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Seccomp:\t2" in status


def size_of(line):
    start, _, end = line.split()[0].partition("-")
    return int(end, 16) - int(start, 16)


def test_a_configuration_file_starts_a_guest(leak_check, kernel, test_initrd, tmp_path):
    config = {
        "boot-source": boot_source(kernel, test_initrd, "none"),
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
        "unknown": 1,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    with Server(tmp_path, "--no-api", "--config-file", os.fspath(path), api=False) as server:
        assert ended(server) == 0
        assert "READY cpus=1" in server.text()
