"""What our server refuses: by name there, while a Firecracker does it."""

import os

import pytest

from vmm_server import is_ours

REFUSED = "is not supported by the QEMU-based VMM."
MACHINE = {"vcpu_count": 1, "mem_size_mib": 128}
BUCKET = {"size": 1, "refill_time": 1}


@pytest.mark.parametrize(
    ("path", "body", "refusal"),
    [
        ("/vsock", {"guest_cid": 3, "uds_path": "FILE.sock"}, "Vsock config error: vsock"),
        ("/pmem/a", {"id": "a", "path_on_host": "FILE"}, "Pmem config error: pmem"),
        (
            "/hotplug/memory",
            {"total_size_mib": 1024},
            "Memory hotplug config error: memory hotplug",
        ),
        ("/cpu-config", {}, "Configure CPU error: cpu-config"),
        (
            "/machine-config",
            {**MACHINE, "huge_pages": "2M"},
            "Machine config error: huge_pages 2M",
        ),
        (
            "/machine-config",
            {**MACHINE, "cpu_template": "T2"},
            "Machine config error: cpu_template T2",
        ),
        (
            "/drives/a",
            {
                "drive_id": "a",
                "is_root_device": False,
                "path_on_host": "FILE",
                "io_engine": "Async",
            },
            "Drive config error: io_engine Async",
        ),
        (
            "/balloon",
            {"amount_mib": 1, "deflate_on_oom": True, "free_page_hinting": True},
            "Balloon config error: free_page_hinting",
        ),
        (
            "/entropy",
            {"rate_limiter": {"ops": BUCKET}},
            "Entropy config error: a rate limit on operations of the entropy device",
        ),
    ],
)
def test_features_that_one_of_them_has(server, disk, path, body, refusal):
    given = {
        key: value.replace("FILE", os.fspath(disk)) if isinstance(value, str) else value
        for key, value in body.items()
    }
    before = server.get("/vm/config")
    response = server.put(path, given)
    if is_ours():
        assert response.fault == f"{refusal} {REFUSED}"
        assert server.get("/vm/config") == before
    else:
        assert response.status == 204


def test_vhost_user_drives(server, ours):
    drive = {"drive_id": "a", "is_root_device": False, "socket": "/x"}
    refusal = "Drive config error: a vhost-user block device (socket)"
    assert server.put("/drives/a", drive).fault == f"{refusal} {REFUSED}"
