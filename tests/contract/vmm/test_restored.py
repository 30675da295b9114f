"""What was changed while a guest ran holds after a snapshot and its load, and may change again."""

import os

import pytest

from vmm_guest import ToldGuest
from vmm_server import Server, wait_until
from vmm_snapshots import by_id

pytestmark = [pytest.mark.vm, pytest.mark.root]

READ = "dd if=/dev/vdc iflag=direct bs=4096 count=1 2>/dev/null"
SIZE = "blockdev --getsize64 /dev/vdc"


def patch_drive(server, path):
    server.done("PATCH", "/drives/c", {"drive_id": "c", "path_on_host": os.fspath(path)})


def inflate(server, amount_mib):
    server.done("PATCH", "/balloon", {"amount_mib": amount_mib})

    def is_there():
        return server.get("/balloon/statistics")["actual_mib"] == amount_mib

    wait_until(is_there, f"a balloon of {amount_mib} MiB", 60)


@pytest.fixture
def files(tmp_path):
    """Two more files for a drive, of other sizes."""
    made = []
    for name, size in (("before", 12288), ("after", 8192)):
        path = tmp_path / name
        path.write_bytes(name.encode().ljust(4096) + bytes(size - 4096))
        made.append(path)
    return made


def test_changes_outlive_a_snapshot(told, tmp_path, files):
    old = told.server
    patch_drive(old, files[0])
    inflate(old, 16)
    limits = {"bandwidth": {"size": 1000, "one_time_burst": None, "refill_time": 100}, "ops": None}
    named = {"iface_id": "eth1", "tx_rate_limiter": limits}
    old.done("PATCH", "/network-interfaces/eth1", named)
    old.done("PATCH", "/vm", {"state": "Paused"})
    config = by_id(old.get("/vm/config"))
    state, memory = os.fspath(tmp_path / "state"), os.fspath(tmp_path / "memory")
    old.done("PUT", "/snapshot/create", {"snapshot_path": state, "mem_file_path": memory})
    old.process.close()
    directory = tmp_path / "restored"
    directory.mkdir()
    # The guest prints to the same place: a log between its lines would be taken for its words.
    with Server(directory, "--log-path", os.fspath(directory / "log")) as server:
        backend = {"backend_path": memory, "backend_type": "File"}
        load = {"snapshot_path": state, "mem_backend": backend, "resume_vm": True}
        server.wait_for_api().done("PUT", "/snapshot/load", load)
        assert by_id(server.get("/vm/config")) == config
        guest = ToldGuest.restored(told, server)
        assert guest.run(f"{SIZE}; {READ}").split() == ["12288", "before"]
        assert server.get("/balloon/statistics")["actual_mib"] == 16
        inflate(server, 0)
        patch_drive(server, files[1])
        guest.run(f"until [ $({SIZE}) = 8192 ]; do usleep 10000; done")
        assert guest.run(READ) == "after"
        none = {"bandwidth": {"size": 0, "refill_time": 0}}
        server.done(
            "PATCH", "/network-interfaces/eth1", {"iface_id": "eth1", "tx_rate_limiter": none}
        )
        assert by_id(server.get("/vm/config"))["network-interfaces"][1]["tx_rate_limiter"] is None
