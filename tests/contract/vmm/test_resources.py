"""Each resource before the start: what is taken, refused, replaced, and how it is shown."""

import pytest

DRIVE = {"drive_id": "rootfs", "is_root_device": True}
VCPUS = (
    "Machine config error: The number of vCPUs must be greater than 0, less than 32 and must be "
    "1 or an even number if SMT is enabled."
)
MEMORY = (
    "Machine config error: The memory size (MiB) is either 0, or not a multiple of the "
    "configured page size."
)


def test_description_of_a_new_instance(server):
    info = server.get("/")
    assert list(info) == ["id", "state", "vmm_version", "app_name"]
    assert (info["id"], info["state"], info["app_name"]) == (
        "test-vm",
        "Not started",
        "Firecracker",
    )


def test_both_versions_are_one(server):
    assert server.get("/version") == {"firecracker_version": server.get("/")["vmm_version"]}


def test_our_version_tells_us_apart(server, ours):
    assert server.get("/")["vmm_version"] == "1.16.1-qemu"


def test_machine_by_default(server):
    assert server.get("/machine-config") == {
        "vcpu_count": 1,
        "mem_size_mib": 128,
        "smt": False,
        "track_dirty_pages": False,
        "huge_pages": "None",
    }


@pytest.mark.parametrize(
    ("update", "fault"),
    [
        ({"vcpu_count": 0}, VCPUS),
        ({"vcpu_count": 33}, VCPUS),
        ({"vcpu_count": 3, "smt": True}, VCPUS),
        ({"mem_size_mib": 0}, MEMORY),
        ({"mem_size_mib": 7, "huge_pages": "2M"}, MEMORY),
    ],
)
def test_machines_that_can_not_be(server, update, fault):
    machine = {"vcpu_count": 1, "mem_size_mib": 128, **update}
    assert server.put("/machine-config", machine).fault == fault
    assert server.patch("/machine-config", update).fault == fault
    assert server.get("/machine-config")["vcpu_count"] == 1


def test_a_put_resets_and_a_patch_changes(server):
    server.done(
        "PUT",
        "/machine-config",
        {"vcpu_count": 4, "mem_size_mib": 256, "smt": True, "track_dirty_pages": True},
    )
    server.done("PATCH", "/machine-config", {"mem_size_mib": 512})
    machine = server.get("/machine-config")
    assert (machine["vcpu_count"], machine["mem_size_mib"], machine["smt"]) == (4, 512, True)
    server.done("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 128})
    assert server.get("/machine-config")["smt"] is False


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_cpu_template_is_deprecated(server, method):
    body = {"vcpu_count": 1, "mem_size_mib": 128, "cpu_template": "None"}
    response = server.request(method, "/machine-config", body)
    assert response.status == 204
    assert response.headers == ["Server", "Connection", "Deprecation"]


def test_a_deprecated_call_says_so_also_when_it_fails(server):
    body = {"vcpu_count": 0, "mem_size_mib": 128, "cpu_template": "None"}
    response = server.put("/machine-config", body)
    assert response.fault == VCPUS
    assert "Deprecation: true" in response.head


def test_kernel_and_initrd_are_opened_at_once(server, any_kernel, tmp_path):
    missing = str(tmp_path / "nothing")
    fault = server.put("/boot-source", {"kernel_image_path": missing}).fault
    assert fault == (
        "Boot source error: The kernel file cannot be opened: No such file or directory "
        "(os error 2)"
    )
    body = {"kernel_image_path": str(any_kernel), "initrd_path": missing}
    assert server.put("/boot-source", body).fault == (
        "Boot source error: The initrd file cannot be opened due to invalid path or invalid "
        "permissions. No such file or directory (os error 2)"
    )


@pytest.mark.parametrize("boot_args", ["x" * 2048, "é" * 1024])
def test_command_lines_that_are_too_long(server, any_kernel, boot_args):
    body = {"kernel_image_path": str(any_kernel), "boot_args": boot_args}
    fault = server.put("/boot-source", body).fault
    assert fault == (
        "Boot source error: The kernel command line is invalid: Invalid cmdline capacity provided."
    )


@pytest.mark.parametrize("boot_args", ["x" * 2047, " " + "x" * 2047 + "\n", "a\nb", "é"])
def test_command_lines_that_are_taken(server, any_kernel, boot_args):
    body = {"kernel_image_path": str(any_kernel), "boot_args": boot_args}
    server.done("PUT", "/boot-source", body)
    assert server.get("/vm/config")["boot-source"]["boot_args"] == boot_args


def test_a_boot_source_may_be_replaced(server, any_kernel):
    for boot_args in ("first", "second", None):
        body = {"kernel_image_path": str(any_kernel), "boot_args": boot_args}
        server.done("PUT", "/boot-source", body)
        assert server.get("/vm/config")["boot-source"]["boot_args"] == boot_args
    wrong = {"kernel_image_path": str(any_kernel.parent / "nothing"), "boot_args": "third"}
    assert server.put("/boot-source", wrong).status == 400
    assert server.get("/vm/config")["boot-source"]["kernel_image_path"] == str(any_kernel)


def test_a_fifo_is_no_kernel_and_blocks_nobody(server, ours, tmp_path):
    import os

    os.mkfifo(tmp_path / "fifo")
    fault = server.put("/boot-source", {"kernel_image_path": str(tmp_path / "fifo")}).fault
    assert fault.endswith("is not a regular file")


def test_start_needs_a_kernel(server):
    fault = server.put("/actions", {"action_type": "InstanceStart"}).fault
    assert fault == "Start microvm error: Cannot start microvm without kernel configuration."


def test_a_drive_as_it_is_shown(server, disk):
    server.done("PUT", "/drives/rootfs", {**DRIVE, "path_on_host": str(disk)})
    assert server.get("/vm/config")["drives"] == [
        {
            "drive_id": "rootfs",
            "partuuid": None,
            "is_root_device": True,
            "cache_type": "Unsafe",
            "is_read_only": False,
            "path_on_host": str(disk),
            "rate_limiter": None,
            "io_engine": "Sync",
            "socket": None,
        }
    ]


def test_the_root_drive_comes_first_and_is_one(server, disk):
    data = {"is_root_device": False, "path_on_host": str(disk)}
    server.done("PUT", "/drives/a", {"drive_id": "a", **data})
    server.done("PUT", "/drives/rootfs", {**DRIVE, "path_on_host": str(disk)})
    fault = server.put("/drives/b", {"drive_id": "b", **data, "is_root_device": True}).fault
    assert fault == "Drive config error: A root block device already exists!"
    server.done("PUT", "/drives/rootfs", {**DRIVE, "path_on_host": str(disk), "partuuid": "1-2"})
    drives = server.get("/vm/config")["drives"]
    assert [(d["drive_id"], d["partuuid"]) for d in drives] == [("rootfs", "1-2"), ("a", None)]


def test_a_drive_without_its_file(server, tmp_path):
    missing = str(tmp_path / "nothing")
    assert server.put("/drives/rootfs", {**DRIVE, "path_on_host": missing}).fault == (
        "Drive config error: Unable to create the virtio block device: Virtio backend error: "
        f"Error manipulating the backing file: No such file or directory (os error 2) {missing}"
    )
    assert server.put("/drives/rootfs", DRIVE).fault == (
        "Drive config error: Unable to create the virtio block device: Invalid block config."
    )
    assert server.get("/vm/config")["drives"] == []


BUCKET = {"size": 1000, "one_time_burst": 5, "refill_time": 100}
NO_BUCKET = {"size": 0, "refill_time": 1}
ENDLESS = {"size": 1, "refill_time": (1 << 64) - 1}


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ({"bandwidth": BUCKET}, {"bandwidth": BUCKET, "ops": None}),
        ({"bandwidth": NO_BUCKET, "ops": BUCKET}, {"bandwidth": None, "ops": BUCKET}),
        (
            {"ops": {"size": 1, "refill_time": 1, "one_time_burst": 0}},
            {"bandwidth": None, "ops": {"size": 1, "one_time_burst": None, "refill_time": 1}},
        ),
        ({}, None),
        ({"bandwidth": NO_BUCKET, "ops": None}, None),
        ({"bandwidth": ENDLESS}, None),
        (None, None),
    ],
)
def test_limits_of_a_drive(server, disk, limits, shown):
    body = {**DRIVE, "path_on_host": str(disk), "rate_limiter": limits}
    server.done("PUT", "/drives/rootfs", body)
    assert server.get("/vm/config")["drives"][0]["rate_limiter"] == shown


def test_a_drive_may_be_replaced(server, disk, tmp_path):
    other = tmp_path / "other.img"
    other.write_bytes(bytes(4096))
    server.done("PUT", "/drives/rootfs", {**DRIVE, "path_on_host": str(disk)})
    changed = {"path_on_host": str(other), "is_read_only": True, "cache_type": "Writeback"}
    server.done("PUT", "/drives/rootfs", {**DRIVE, **changed})
    missing = {**DRIVE, "path_on_host": str(tmp_path / "nothing")}
    assert server.put("/drives/rootfs", missing).status == 400
    (shown,) = server.get("/vm/config")["drives"]
    assert {key: shown[key] for key in changed} == changed


def test_an_interface_without_its_tap(server):
    body = {"iface_id": "eth0", "host_dev_name": "not/a/valid/name/at/all"}
    fault = server.put("/network-interfaces/eth0", body).fault
    assert fault.startswith(
        "Network config error: Could not create the network device: Open tap device failed: "
    )


def test_an_mtu_that_is_too_small(server):
    body = {"iface_id": "eth0", "host_dev_name": "tap0", "mtu": 67}
    assert server.put("/network-interfaces/eth0", body).fault == (
        "Network config error: Could not create the network device: MTU 67 is out of range "
        "[68, 65535]"
    )


@pytest.mark.root
def test_interfaces_on_taps(server, taps):
    first = {"iface_id": "eth0", "host_dev_name": taps[0], "guest_mac": "06:00:00:00:00:AA"}
    server.done("PUT", "/network-interfaces/eth0", first)
    second = {"iface_id": "eth1", "host_dev_name": taps[1], "guest_mac": "06:00:00:00:00:aa"}
    fault = server.put("/network-interfaces/eth1", second).fault
    assert fault == "Network config error: The MAC address is already in use: 06:00:00:00:00:aa"
    assert server.put("/network-interfaces/eth1", {**second, "guest_mac": None}).status == 204
    server.done("PUT", "/network-interfaces/eth0", first)
    busy = {"iface_id": "eth2", "host_dev_name": taps[0]}
    assert server.put("/network-interfaces/eth2", busy).fault == (
        "Network config error: Could not create the network device: Open tap device failed: "
        "Error while creating ifreq structure: Device or resource busy (os error 16). Invalid "
        f"TUN/TAP Backend provided by {taps[0]}. Check our documentation on setting up the "
        "network devices."
    )
    assert server.get("/vm/config")["network-interfaces"][-1] == {
        "iface_id": "eth0",
        "host_dev_name": taps[0],
        "guest_mac": "06:00:00:00:00:aa",
        "mtu": None,
        "rx_rate_limiter": None,
        "tx_rate_limiter": None,
    }


def test_the_whole_configuration(server, any_kernel):
    server.done("PUT", "/boot-source", {"kernel_image_path": str(any_kernel), "boot_args": "quiet"})
    server.done("PUT", "/entropy", {})
    assert server.get("/vm/config") == {
        "balloon": None,
        "drives": [],
        "boot-source": {
            "kernel_image_path": str(any_kernel),
            "initrd_path": None,
            "boot_args": "quiet",
        },
        "cpu-config": None,
        "logger": None,
        "machine-config": server.get("/machine-config"),
        "metrics": None,
        "mmds-config": None,
        "network-interfaces": [],
        "vsock": None,
        "entropy": {"rate_limiter": None},
        "pmem": [],
        "memory-hotplug": None,
    }


@pytest.mark.root
@pytest.mark.parametrize("direction", ["rx_rate_limiter", "tx_rate_limiter"])
def test_limits_of_an_interface(server, taps, direction):
    interface = {"iface_id": "a", "host_dev_name": taps[0]}
    for limits, shown in (
        ({"ops": BUCKET}, {"bandwidth": None, "ops": BUCKET}),
        ({"bandwidth": BUCKET, "ops": NO_BUCKET}, {"bandwidth": BUCKET, "ops": None}),
        ({"ops": NO_BUCKET}, None),
        (None, None),
    ):
        server.done("PUT", "/network-interfaces/a", {**interface, direction: limits})
        (found,) = server.get("/vm/config")["network-interfaces"]
        assert found[direction] == shown


def test_metrics_are_set_up_once(server, tmp_path):
    server.done("PUT", "/metrics", {"metrics_path": str(tmp_path / "metrics")})
    fault = server.put("/metrics", {"metrics_path": str(tmp_path / "other")}).fault
    assert fault.startswith("Metrics error: ")
    assert fault.endswith("Reinitialization of metrics not allowed.")


def test_a_log_that_can_not_be_opened(server, tmp_path):
    fault = server.put("/logger", {"log_path": str(tmp_path / "no" / "log")}).fault
    assert fault.endswith("No such file or directory (os error 2)")


BEFORE = "The requested operation is not supported before starting the microVM."


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/vm", {"state": "Paused"}),
        ("PATCH", "/vm", {"state": "Resumed"}),
        ("PUT", "/actions", {"action_type": "FlushMetrics"}),
        ("PUT", "/actions", {"action_type": "SendCtrlAltDel"}),
        ("PATCH", "/drives/a", {"drive_id": "a", "path_on_host": "/x"}),
        ("PATCH", "/network-interfaces/a", {"iface_id": "a"}),
        ("DELETE", "/drives/a", None),
        ("DELETE", "/network-interfaces/a", None),
        ("DELETE", "/pmem/a", None),
        ("PATCH", "/pmem/a", {"id": "a"}),
        ("GET", "/hotplug/memory", None),
        ("PATCH", "/hotplug/memory", {"requested_size_mib": 1}),
        ("PUT", "/snapshot/create", {"snapshot_path": "/a", "mem_file_path": "/b"}),
    ],
)
def test_what_needs_a_running_guest(server, method, path, body):
    assert server.request(method, path, body).fault == BEFORE
