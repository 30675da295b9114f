"""The server as a service of a real systemd: installed, restarted, killed, removed, purged."""

import shutil
import subprocess
import time

import pytest

from leaks import Scope, assert_no_leaks, snapshot
from systemd_machine import WRENN, booted
from wrennd.storage.images import ImageStore
from wrennd.storage.layout import Layout

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.long]

DATA = "/var/lib/wrenn"
UNIT = "/etc/systemd/system/wrenn.service"
WAIT_S = 300


@pytest.fixture(scope="module")
def seed(layout, tmp_path_factory):
    """A data directory with a kernel and the smallest image, to be copied into the machine."""
    own = Layout.prepare(tmp_path_factory.mktemp("seed") / "data")
    for link in (layout.current_kernel, layout.image_name("busybox")):
        here = own.data_dir / link.relative_to(layout.store)
        target = here.parent / link.readlink()
        subprocess.run(["cp", "-a", "--sparse=always", link.resolve(), target], check=True)
        here.symlink_to(link.readlink())
    assert ImageStore(own).find("busybox")
    yield own.data_dir
    shutil.rmtree(own.data_dir)


@pytest.fixture(scope="module")
def shared_world(seed):
    """The machine of all these tests. That nothing of it is left outside is looked at here."""
    scope = Scope(installations=((seed / "installation").read_text().strip(),))
    before = snapshot(scope)
    with booted(seed) as machine:
        yield machine
    assert_no_leaks(before, scope)


@pytest.fixture
def machine(shared_world, seed):
    """With data and no server; whatever the last test left is purged."""
    shared_world.wrenn("uninstall", "--purge")
    shared_world.run("cp", "-a", "--sparse=always", seed, DATA)
    return shared_world


@pytest.fixture
def service(machine):
    """With a server that is installed."""
    machine.wrenn("up", "--install")
    return machine


def made(machine):
    """A sandbox's id, and how the guest's kernel calls this boot of its."""
    sandbox = machine.wrenn("create", "--template", "busybox").splitlines()[-1]
    return sandbox, boot_of(machine, sandbox)


def boot_of(machine, sandbox):
    return machine.wrenn("exec", sandbox, "--", "cat", "/proc/sys/kernel/random/boot_id")


def main_pid(machine):
    return int(machine.systemctl("show", "--property=MainPID", "--value", "wrenn"))


def state(machine):
    return machine.systemctl("is-active", "wrenn", check=False)


def wait_until(is_so, what):
    ends = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < ends, f"waited {WAIT_S} s for {what}"
        time.sleep(0.1)


def test_it_is_ready_when_the_command_says_so_and_starts_at_boot(machine):
    said = machine.wrenn("up", "--install")
    assert "http://127.0.0.1:7070/test" in said
    assert "/etc/wrenn/admin.key" in said
    assert machine.systemctl("is-enabled", "wrenn") == "enabled"
    assert state(machine) == "active"
    assert "The API is at http://127.0.0.1:7070" in machine.systemctl("status", "wrenn")
    assert machine.wrenn("key", "ls").count("e2b_") == 1
    assert "control plane" in machine.run("journalctl", "--no-pager", "-u", "wrenn")


def test_a_restart_leaves_sandboxes_alone(service):
    sandbox, boot = made(service)
    before = main_pid(service)
    for how in (("restart", "wrenn"), ("daemon-reload",), ("restart", "wrenn")):
        service.systemctl(*how)
        assert boot_of(service, sandbox) == boot
    assert main_pid(service) != before
    assert limits_of(service, sandbox)


def limits_of(machine, sandbox):
    """Whether its cgroup still limits what there are controllers for."""
    root = "/sys/fs/cgroup"
    offered = machine.run("cat", f"{root}/cgroup.controllers").split()
    found = machine.run("sh", "-c", f"ls -d {root}/wrenn-*/{sandbox}").strip()
    for controller, file in (("cpu", "cpu.max"), ("memory", "memory.max"), ("pids", "pids.max")):
        if controller in offered:
            assert "max" not in machine.run("cat", f"{found}/{file}").split()[0], file
    return True


def test_a_server_that_is_killed_comes_back_by_itself(service):
    sandbox, boot = made(service)
    before = main_pid(service)
    service.systemctl("kill", "--kill-who=main", "--signal=KILL", "wrenn")
    wait_until(
        lambda: main_pid(service) not in (0, before) and state(service) == "active", "a new server"
    )
    assert boot_of(service, sandbox) == boot


def test_what_was_asked_to_end_stays_ended(service):
    sandbox, boot = made(service)
    service.wrenn("down")
    assert state(service) == "inactive"
    assert boot_of(service, sandbox) == boot  # without a server
    service.systemctl("start", "wrenn")
    assert boot_of(service, sandbox) == boot


def test_installing_again_changes_its_options(service):
    sandbox, boot = made(service)
    assert "http://127.0.0.1:7171" in service.wrenn("up", "--install", "--listen", "127.0.0.1:7171")
    assert boot_of(service, sandbox) == boot


def test_a_service_that_can_t_start_says_where_to_read_why(machine):
    done = machine.attempt("sh", "-c", f"exec {WRENN} up --install --database nonsense://")
    assert done.returncode == 125
    assert "hint: journalctl -u wrenn.service" in done.stdout


def test_another_data_directory_s_service_is_left_alone(service):
    for words in (("up", "--install"), ("uninstall", "--purge")):
        done = service.attempt(WRENN, *words, "--data-dir", "/var/lib/other")
        assert (done.returncode == 125) == (words[0] == "up"), done.stdout
    assert state(service) == "active"


def test_a_server_in_the_foreground_is_not_replaced(machine):
    service = machine.run(
        *("systemd-run", "--unit=foreground", "--property=Type=notify", WRENN, "up")
    )
    done = machine.attempt(WRENN, "up", "--install")
    assert done.returncode == 125, service
    assert "wrenn down" in done.stdout
    machine.wrenn("down")


def test_uninstall_keeps_sandboxes_and_data(service):
    sandbox, boot = made(service)
    assert "removed: the service wrenn.service" in service.wrenn("uninstall")
    assert service.attempt("systemctl", "status", "wrenn").returncode == 4  # no such unit
    assert boot_of(service, sandbox) == boot
    assert service.wrenn("uninstall") == "there was nothing to remove\n"
    service.wrenn("up", "--install")
    assert boot_of(service, sandbox) == boot
    assert service.wrenn("key", "ls").count("e2b_") == 1


def test_purge_leaves_nothing(service):
    made(service)
    service.wrenn("pause", made(service)[0])
    service.wrenn("uninstall", "--purge")
    for path in (DATA, "/var/lib/wrenn-server", "/etc/wrenn", UNIT):
        assert service.attempt("test", "-e", path).returncode == 1, path
    assert service.attempt("getent", "passwd", "wrenn").returncode == 2
    assert service.run("sh", "-c", "ls -d /sys/fs/cgroup/wrenn-* 2>&- || :") == ""
    assert service.run("sh", "-c", "ls /run/netns 2>&- || :") == ""
    # The lock of slots is all installations', and stays until the next boot.
    assert service.run("find", "/run/wrenn", "-type", "f,s") == "/run/wrenn/slots.lock\n"
    assert service.run("ip", "-o", "link").count("\n") == 1  # lo
    assert "wrenn" not in service.run("nft", "list", "tables")
    words = service.run("ps", "-eo", "args")
    assert "wrennd" not in words
    assert "qemu" not in words
