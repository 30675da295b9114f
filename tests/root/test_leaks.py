"""The leak check itself: it names each kind of thing that is left, and sees no one else's."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

import leaks
from leaks import LeakCheck, Scope, snapshot
from wrennd.core.deadline import Deadline
from wrennd.core.ids import new_installation_id
from wrennd.linux import netns, nftables, process
from wrennd.linux.cgroup import Hierarchy
from wrennd.network.lease import Leases

pytestmark = pytest.mark.root

Make = Callable[[str, Path], AbstractContextManager[str]]


@contextmanager
def a_process(installation: str, _tmp: Path) -> Iterator[str]:
    # It answers before it is looked for: within exec a process has no command line.
    ours, its = socket.socketpair()
    with ours, its, process.spawn(["cat"], stdin=its.fileno(), stdout=its.fileno()) as child:
        ours.sendall(b"up")
        assert ours.recv(2) == b"up"
        yield f"process: {child.pid} cat"


@contextmanager
def a_namespace(installation: str, _tmp: Path) -> Iterator[str]:
    with netns.named(f"wrenn-{installation}-abc"):
        yield f"namespace: wrenn-{installation}-abc"


@contextmanager
def a_link(installation: str, _tmp: Path) -> Iterator[str]:
    name = f"w{installation}v0"
    process.run(
        ["ip", "link", "add", name, "type", "veth", "peer", "name", "nwtpeer"], timeout_s=60
    )
    try:
        yield f"link: {name}"
    finally:
        process.run(["ip", "link", "del", name], timeout_s=60)


@contextmanager
def a_table(installation: str, _tmp: Path) -> Iterator[str]:
    nftables.apply(f"add table inet wrenn-{installation}\n")
    try:
        yield f"table: inet wrenn-{installation}"
    finally:
        nftables.delete_table(f"wrenn-{installation}")


@contextmanager
def a_mount(_installation: str, tmp: Path) -> Iterator[str]:
    target = tmp / "mounted"
    target.mkdir()
    process.run(["mount", "-t", "tmpfs", "tmpfs", target], timeout_s=60)
    try:
        yield f"mount: {target} (tmpfs tmpfs/)"
    finally:
        process.run(["umount", target], timeout_s=60)


@contextmanager
def a_loop(_installation: str, tmp: Path) -> Iterator[str]:
    backing = tmp / "backing"
    backing.write_bytes(bytes(1 << 20))
    done = process.run(["losetup", "--show", "--find", backing], timeout_s=60)
    device = done.stdout.strip()
    try:
        yield f"loop device: {Path(device).name} ({backing})"
    finally:
        process.run(["losetup", "--detach", device], timeout_s=60)


@contextmanager
def a_cgroup(installation: str, _tmp: Path) -> Iterator[str]:
    found = Hierarchy.find()
    assert found is not None
    made = found.make(f"wrenn-{installation}", "abc")
    try:
        yield f"cgroup: {made.path}"
    finally:
        made.remove(Deadline.after(60))
        made.path.parent.rmdir()


@contextmanager
def a_socket(_installation: str, tmp: Path) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp / "api.sock"))
        yield f"unix socket: {tmp / 'api.sock'}"


@contextmanager
def a_lease(installation: str, tmp: Path) -> Iterator[str]:
    leases = Leases(tmp)
    with leases.lock(Deadline.after(60)):
        leases.take(installation, "abc", slots=4, is_free=lambda _: True)
    try:
        yield f"file: {tmp / 'slots/0'} held by {installation}"
    finally:
        (tmp / "slots/0").unlink()


@contextmanager
def a_file(installation: str, tmp: Path) -> Iterator[str]:
    made = tmp / installation / "abc"
    made.mkdir(parents=True)
    try:
        yield f"file: {made}"
    finally:
        made.rmdir()
        made.parent.rmdir()


@contextmanager
def a_descriptor(_installation: str, tmp: Path) -> Iterator[str]:
    with (tmp / "open").open("w") as file:
        yield f"descriptor: {file.fileno()} {tmp / 'open'}"


KINDS: list[Make] = [
    a_process,
    a_namespace,
    a_link,
    a_table,
    a_mount,
    a_loop,
    a_cgroup,
    a_socket,
    a_lease,
    a_file,
    a_descriptor,
]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_what_is_left_is_named(make: Make, tmp_path: Path) -> None:
    installation = new_installation_id()
    scope = Scope(installations=(installation,), paths=(tmp_path,), run_root=tmp_path)
    before = snapshot(scope)
    with make(installation, tmp_path) as wanted:
        assert wanted in snapshot(scope).since(before)
    leaks.assert_no_leaks(before, scope)


# These carry no installation's name: a path or the parent tells whose they are.
UNSIGNED = (a_process, a_descriptor, a_mount, a_loop, a_socket)
STRANGE = [make for make in KINDS if make not in UNSIGNED]


@pytest.mark.parametrize("make", STRANGE, ids=lambda make: make.__name__)
def test_another_installation_is_not_seen(make: Make, tmp_path: Path) -> None:
    scope = Scope(installations=(new_installation_id(),), run_root=tmp_path)
    before = snapshot(scope)
    with make(new_installation_id(), tmp_path):
        assert snapshot(scope).since(before) == []


@pytest.mark.parametrize("make", STRANGE[:3], ids=lambda make: make.__name__)
def test_without_an_installation_everybodys_is_seen(make: Make, tmp_path: Path) -> None:
    before = snapshot()
    with make(new_installation_id(), tmp_path) as wanted:
        assert wanted in snapshot().since(before)


def test_a_zombie_is_left_too(tmp_path: Path) -> None:
    before = snapshot(Scope(installations=("zzzzzz",)))
    with process.spawn(["true"]) as child:
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
        assert snapshot(Scope(installations=("zzzzzz",))).since(before)[0] == (
            f"process: {child.pid} (zombie)"
        )


def test_a_stranger_s_words_may_be_anything(tmp_path: Path) -> None:
    before = snapshot(Scope(installations=("zzzzzz",)))
    words = ["sh", "-c", "read -r line", b"\xff zzzzzz"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as child:
        assert snapshot(Scope(installations=("zzzzzz",))).since(before) != []
        child.communicate(b"\n")


def test_the_check_waits_a_moment_and_then_fails(tmp_path: Path) -> None:
    with ExitStack() as held:
        check = LeakCheck()
        held.enter_context(process.spawn(["sleep", "0.3"]))
        with pytest.raises(AssertionError, match=r"left behind:\n  .*process: .*zombie"):
            leaks.assert_no_leaks(check.before, check.scope, patience_s=0.5)


def test_what_was_there_before_is_no_leak(tmp_path: Path) -> None:
    with process.spawn(["sleep", "60"]):
        LeakCheck().finish()
