"""Memory by a page-fault handler: what it is told, and guests whose handler is a bad one."""

import os
import socket
import time
from contextlib import nullcontext, suppress

import pytest

from leaks import LeakCheck
from page_handler import PAGE, PageHandler
from vmm_server import Server, is_ours, request, wait_until
from vmm_snapshots import (
    MEM_MIB,
    boot,
    continued,
    data_pages,
    differing,
    digest,
    overlaid,
    pause,
    restored,
    resume,
    take,
)

pytestmark = [pytest.mark.vm, pytest.mark.root]

SIZE = MEM_MIB << 20
FAILED = (
    "Load snapshot error: Failed to restore from snapshot: Failed to load guest memory: "
    "Error creating guest memory from uffd: Failed to connect to UDS Unix stream: "
)


@pytest.fixture(scope="module")
def frozen(vmm_under_test, kernel, test_initrd, tmp_path_factory):
    """A Full snapshot, its bytes, and what its guest's data are."""
    check = LeakCheck()
    directory = tmp_path_factory.mktemp("frozen")
    with Server(directory) as server:
        guest = boot(server.wait_for_api(), kernel, test_initrd)
        data = digest(guest)
        pause(server)
        made = take(guest, directory, name="frozen")
    yield Frozen(made, made.memory.read_bytes(), data)
    check.finish()


class Frozen:
    def __init__(self, snapshot, image, data):
        self.snapshot, self.image, self.data = snapshot, image, data


@pytest.fixture
def handler(frozen, tmp_path):
    with PageHandler(tmp_path / "uffd.sock", frozen.image) as serving:
        yield serving


def test_what_a_handler_is_told(frozen, handler, tmp_path):
    with restored(tmp_path / "vmm", frozen.snapshot, handler=handler) as guest:
        assert len(handler.fds) == 1
        assert handler.message.startswith(b'[{"base_host_virt_addr":')
        (mapping,) = handler.mappings
        assert mapping.pop("base_host_virt_addr") % PAGE == 0
        assert mapping.pop("wp_async", None) in (None, True)
        assert mapping == {"size": SIZE, "offset": 0, "page_size": PAGE, "page_size_kib": PAGE}
        assert handler.peer_pid == guest.server.process.pid
        assert digest(guest) == frozen.data
        assert 0 < len(handler.served) < SIZE // PAGE / 2, "it is not fetched before it is needed"
        assert len(set(handler.served)) == len(handler.served)
        assert not handler.is_over.is_set(), "the connection stays"
    assert handler.is_over.wait(30), "its end is the VMM's"


@pytest.mark.parametrize("tracking", [True, False])
def test_a_full_one_fetches_what_is_missing(frozen, handler, tmp_path, tracking):
    more = {"handler": handler, "resume_vm": False, "track_dirty_pages": tracking}
    with restored(tmp_path / "vmm", frozen.snapshot, **more) as guest:
        assert len(handler.served) < SIZE // PAGE / 100
        full = take(guest, tmp_path, "Full", "full")
        assert len(differing(frozen.image, full.memory.read_bytes())) <= 4, "pages of its devices"
        resume(guest.server)
        assert digest(guest) == frozen.data


@pytest.mark.parametrize("heeds_wp", [True, False])
def test_a_diff_has_what_was_written(frozen, tmp_path, heeds_wp):
    """A handler that does not ask for write protection makes it larger, and no less right."""
    with (
        PageHandler(tmp_path / "uffd.sock", frozen.image, heeds_wp=heeds_wp) as handler,
        restored(tmp_path / "vmm", frozen.snapshot, handler=handler) as guest,
    ):
        digest(guest)
        guest.run("dd if=/dev/zero of=/data bs=4k count=9 conv=notrunc 2>/dev/null")
        pause(guest.server)
        diff = take(guest, tmp_path, "Diff", "diff")
        populated = {offset // PAGE for offset in handler.served}
        if heeds_wp and handler.mappings[0].get("wp_async"):
            assert 9 <= len(data_pages(diff.memory)) < len(populated) / 2
        full = take(guest, tmp_path, "Full", "full")
        merged = overlaid(frozen.image, diff.memory)
        assert differing(merged, full.memory.read_bytes()) == []


def test_a_balloon_gives_pages_back_and_takes_them_again(frozen, handler, tmp_path):
    with restored(tmp_path / "vmm", frozen.snapshot, handler=handler) as guest:
        guest.server.done("PATCH", "/balloon", {"amount_mib": 24})
        wait_until(lambda: len(handler.removed) * PAGE >= 24 << 20, "a balloon of 24 MiB", 90)
        assert digest(guest) == frozen.data
        guest.server.done("PATCH", "/balloon", {"amount_mib": 0})
        # As much as only fits when it is given back, and what is there stays right.
        guest.run("dd if=/dev/urandom of=/more bs=64k count=500 2>/dev/null; rm /more", 180)
        assert digest(guest) == frozen.data
        pause(guest.server)
        diff = take(guest, tmp_path, "Diff", "diff")
        full = take(guest, tmp_path, "Full", "full")
        merged = overlaid(frozen.image, diff.memory)
        wrong = set(differing(merged, full.memory.read_bytes()))
        assert wrong <= {offset // PAGE for offset in handler.removed}


def test_a_socket_that_is_not_there(server, frozen, tmp_path):
    body = frozen.snapshot.body("Uffd", tmp_path / "none")
    assert server.put("/snapshot/load", body).fault == (
        f"{FAILED}No such file or directory (os error 2)"
    )
    assert server.exit_code() == 1


def test_a_socket_on_which_nobody_listens(server, frozen, tmp_path):
    path = tmp_path / "uffd.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fspath(path))
    body = frozen.snapshot.body("Uffd", path)
    assert server.put("/snapshot/load", body).fault == (
        f"{FAILED}Connection refused (os error 111)"
    )
    assert server.exit_code() == 1


def test_a_failed_load_is_the_last_that_is_answered(server, frozen, tmp_path):
    """In a Firecracker (1.16.1) the thread that has the second request may find nobody to give it
    to, before it has answered the first; its end is then that of a forbidden system call, 148."""
    body = frozen.snapshot.body("Uffd", tmp_path / "none")
    with server.connect() as client:
        # At once: it may end before a second one could be sent.
        client.send(request("PUT", "/snapshot/load", body) + request("GET", "/"))
        with nullcontext() if is_ours() else suppress(EOFError):
            assert client.receive().status == 400
        assert client.is_closed_by_server()
    assert server.exit_code() in ((1,) if is_ours() else (1, 148))


@pytest.mark.parametrize("dies", [True, False])
def test_without_its_handler_a_guest_stands_still(server, frozen, tmp_path, dies):
    """It gets no page that is not its own: not when the handler ends, nor when it never reads."""
    guest = continued(server, frozen.snapshot)
    path = tmp_path / "uffd.sock"
    with socket.socket(socket.AF_UNIX) as listener, server.connect() as client:
        listener.bind(os.fspath(path))
        listener.listen()
        client.ask("PUT", "/snapshot/load", frozen.snapshot.body("Uffd", path))
        if dies:
            end_at_once(listener)
        client.socket.settimeout(3)
        with pytest.raises(TimeoutError):
            client.receive()
        assert server.process.exit_code is None
    assert not guest.console.exists() or guest.text() == ""


def end_at_once(listener):
    """As a handler that fails when it has got everything."""
    listener.settimeout(30)
    connection, _ = listener.accept()
    with connection:
        _, fds, _, _ = socket.recv_fds(connection, 65536, 1)
    for fd in fds:
        os.close(fd)


def test_a_guest_whose_handler_ends_later_stands_still_too(frozen, tmp_path):
    with (
        PageHandler(tmp_path / "uffd.sock", frozen.image) as handler,
        restored(tmp_path / "vmm", frozen.snapshot, handler=handler) as guest,
    ):
        handler.stop()
        number = guest.tell("md5sum /data; dd if=/dev/urandom of=/x bs=64k count=256")
        time.sleep(2)  # nothing shows that something never comes, but time
        assert f"END {number}" not in guest.text()
        assert guest.server.process.exit_code is None


def test_another_handler_can_go_on(frozen, tmp_path):
    """With the same descriptor, and every fault sent again: none is lost."""
    with (
        PageHandler(tmp_path / "uffd.sock", frozen.image) as handler,
        restored(tmp_path / "vmm", frozen.snapshot, handler=handler) as guest,
    ):
        handler.stop()
        number = guest.tell("md5sum /data")
        assert handler.swallow(), "a fault that nobody will answer"
        handler.go_on()
        guest.wait_for(f"END {number} status 0")
        assert frozen.data in guest.text()
