"""A VMM for each test, and guests for those that need one."""

import os
from contextlib import ExitStack, contextmanager
from itertools import count

import pytest

from leaks import LeakCheck
from vmm_guest import ToldGuest, boot_source, make_initrd
from vmm_server import IN_LAB, Server, is_ours, program, under_test
from wrennd.linux import process

TAPS = count()
# What needs PyPI, or is about bytes only: outside the lab it says as much. And a guest that is
# too large for it.
NOT_IN_LAB = ("test_clients", "test_hostile", "test_snapshot_large")


def pytest_itemcollected(item):
    if item.path.stem not in NOT_IN_LAB:
        item.add_marker(pytest.mark.lab)


def pytest_generate_tests(metafunc):
    """In the lab each test is for every VMM with KVM; those that boot nothing for Firecracker only,
    since KVM makes no difference to our server there."""
    if os.environ.get("WRENN_LAB"):
        marks = {mark.name for mark in metafunc.definition.iter_markers()}
        names = list(IN_LAB) if "vm" in marks else ["firecracker"]
        metafunc.parametrize("vmm_under_test", names, indirect=True, scope="session")


@pytest.fixture(scope="session", autouse=True)
def vmm_under_test(request):
    """What several tests share asks for it by name: it ends with the VMM that it was made by."""
    name = getattr(request, "param", None)
    if name is None:
        yield
        return
    if name == "firecracker" and not os.environ.get("WRENN_LAB_FIRECRACKER"):
        pytest.skip("no Firecracker was given: make lab FIRECRACKER=FILE")
    with under_test(name):
        yield


@pytest.fixture
def server(leak_check, tmp_path):
    """A VMM that has been told nothing."""
    with Server(tmp_path, "--level", "Debug") as running:
        yield running.wait_for_api()


@pytest.fixture
def ours():
    """For what only our server does: its limits, its QEMU."""
    if not is_ours():
        pytest.skip(f"WRENN_VMM names another program than ours: {' '.join(program())}")


@pytest.fixture
def any_kernel(tmp_path):
    """A file that may be named as a kernel; nothing boots from it."""
    path = tmp_path / "any-kernel"
    path.write_bytes(b"not a kernel")
    return path


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(b"hello" + bytes(1 << 20))
    return path


@pytest.fixture(scope="session")
def test_initrd(kernel, tmp_path_factory):
    path = tmp_path_factory.mktemp("initrd") / "initrd.img"
    make_initrd(path, kernel.initrd.read_bytes())
    return path


@pytest.fixture
def guest(kernel, test_initrd, tmp_path):
    """Configure a server for one of the test guest's modes; its console is `console.log`."""

    def configure(server, mode, *, vcpus=1, console=True):
        server.done("PUT", "/machine-config", {"vcpu_count": vcpus, "mem_size_mib": 128})
        server.done("PUT", "/boot-source", boot_source(kernel, test_initrd, mode))
        log = tmp_path / "console.log"
        if console:
            server.done("PUT", "/serial", {"serial_out_path": os.fspath(log)})
        return log

    return configure


@pytest.fixture
def start():
    def instance_start(server):
        server.done("PUT", "/actions", {"action_type": "InstanceStart"})

    return instance_start


@pytest.fixture(scope="module")
def told(vmm_under_test, kernel, test_initrd, tmp_path_factory):
    """A running guest that the tests of a module share: what they change, they name.

    /dev/vdb may be written, /dev/vdc not, /dev/vdd takes 20 requests a second; eth0 and
    eth1 are on the two of `told.taps`, and eth1 began with limits.
    """
    check = LeakCheck()
    directory = tmp_path_factory.mktemp("told")
    with Server(directory, "--level", "Debug") as server, made_taps() as taps:
        guest = ToldGuest(server.wait_for_api())
        guest.taps = taps
        guest.configure(kernel, test_initrd)
        for name in ("b", "c", "d"):
            path = directory / f"{name}.img"
            path.write_bytes(name.encode() * (1 << 20))
            drive = {
                "drive_id": name,
                "is_root_device": False,
                "is_read_only": name == "c",
                "path_on_host": os.fspath(path),
                "rate_limiter": {"ops": {"size": 4, "refill_time": 200}} if name == "d" else None,
            }
            server.done("PUT", f"/drives/{name}", drive)
        interface = {"iface_id": "eth0", "host_dev_name": taps[0]}
        server.done("PUT", "/network-interfaces/eth0", interface)
        # So much that it is none: but limits may be set once the guest runs.
        bucket = {"size": 1 << 30, "refill_time": 100}
        limited = {
            "iface_id": "eth1",
            "host_dev_name": taps[1],
            "rx_rate_limiter": {"bandwidth": bucket},
            "tx_rate_limiter": {"bandwidth": bucket},
        }
        server.done("PUT", "/network-interfaces/eth1", limited)
        balloon = {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 1}
        server.done("PUT", "/balloon", balloon)
        guest.start()
        yield guest
    check.finish()


@pytest.fixture
def taps():
    """Two taps in this namespace, gone at the end."""
    with made_taps() as names:
        yield names


@contextmanager
def made_taps():
    names = [f"qv{os.getpid() % 100000}n{next(TAPS)}" for _ in range(2)]
    with ExitStack() as made:
        for name in names:
            add = ["ip", "tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr"]
            process.run(add, timeout_s=60)
            made.callback(process.run, ["ip", "link", "del", name], timeout_s=60)
        yield names
