"""Start a VMM confined: describes its root to the exec wrapper `linux/confine.py`.

Paths inside the VMM's root are constants here: they are part of every snapshot.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wrennd.linux import confine, devices, process
from wrennd.linux.devices import BlockDevice
from wrennd.linux.process import Process
from wrennd.vmm.program import Program, interpreter

RUN = "/run/vmm"
API_SOCKET = f"{RUN}/api.sock"
CONSOLE = f"{RUN}/console.log"
LOG = f"{RUN}/vmm.log"
KERNEL = "/boot/vmlinux"
INITRD = "/boot/initrd.img"
DISK = "/disk/rootfs.ext4"
STABLE_DISK = "/tmp/fc-vm/rootfs.ext4"
PAGER_SOCKET = f"{RUN}/uffd.sock"
SNAPSHOT_OUT = "/snapshot/out"
OUT_STATE, OUT_MEMORY = f"{SNAPSHOT_OUT}/state", f"{SNAPSHOT_OUT}/memory"
IN_STATE, IN_MEMORY = "/snapshot/in/state", "/snapshot/in/memory"

MAX_FDS = 2048  # the jailer's default
MAX_TASKS = 512  # QEMU: one thread a vCPU, up to 64 block workers, and its own


@dataclass(frozen=True, kw_only=True)
class RestoreFiles:
    """The files of a snapshot that a VMM opens itself, readable by its uid (0444).

    memory: None when a pager serves it.
    """

    state: Path
    memory: Path | None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Where a VMM is put: all that it holds of the host. Owns nothing.

    run_dir: becomes /run/vmm; the caller made it and removes it. disk: a file, or a device of which
    the VMM gets a node; None for a guest that needs none. netns: None for an empty one.
    kernel, initrd: None for a VMM that only restores. out_dir: where its snapshots go, None for a
    VMM that makes none; made and removed by the caller too. restore: what it is restored from, None
    for one that boots. cgroup_procs: the file to join, if there is a cgroup. dies_with_parent: end
    with the thread that launches (Linux ties a death signal to the thread, not the process).
    max_file_bytes: no file grows past it: a VMM that was taken over can't fill the host's disk
    through its own.
    """

    id: str
    uid: int
    run_dir: Path
    kernel: Path | None
    initrd: Path | None
    disk: Path | BlockDevice | None
    netns: Path | None
    cgroup_procs: Path | None
    dies_with_parent: bool
    max_file_bytes: int
    out_dir: Path | None = None
    restore: RestoreFiles | None = None


def launch(program: Program, cell: Cell) -> Process:
    """A running VMM that has not been told anything yet. The caller owns it; its files are left.

    In the run directory, which is its uid's: `vmm.log`, its own words, and `console.log`, those of
    the guest. Firecracker's stdout is the console: it would open a file that `PUT /serial` names
    without O_APPEND, and write on far behind the end once we have emptied it.
    """
    os.chown(cell.run_dir, cell.uid, cell.uid)
    if cell.out_dir is not None:
        os.chown(cell.out_dir, cell.uid, cell.uid)
    with _output(cell, "vmm.log") as log, _output(cell, "console.log") as console:
        return process.spawn(
            [interpreter(), "-I", "-S", confine.__file__, json.dumps(describe(program, cell))],
            stdout=console if program.is_firecracker else log,
            stderr=log,
        )


@contextmanager
def _output(cell: Cell, name: str) -> Iterator[int]:
    """A new file in the run directory that the VMM writes to, open for appending."""
    fd = os.open(
        cell.run_dir / name,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW,
        0o600,
    )
    try:
        os.fchown(fd, cell.uid, cell.uid)
        yield fd
    finally:
        os.close(fd)


def describe(program: Program, cell: Cell) -> dict[str, object]:
    """What `linux/confine.py` is told."""
    log = ["--log-path", LOG] if program.is_firecracker else []
    return {
        "argv": [*program.argv, "--api-sock", API_SOCKET, "--id", cell.id, *log],
        "env": {"PATH": "/usr/bin", "LANG": "C.UTF-8"},
        "uid": cell.uid,
        "netns": None if cell.netns is None else os.fspath(cell.netns),
        "cgroup_procs": None if cell.cgroup_procs is None else os.fspath(cell.cgroup_procs),
        "binds": [
            [os.fspath(source), target, is_writable]
            for source, target, is_writable in _binds(program, cell)
            if source is not None
        ],
        "dirs": [],
        "links": [
            [DISK, STABLE_DISK],
            ["usr/lib", "/lib"],
            ["usr/lib64", "/lib64"],
        ],
        "nodes": devices.nodes(*program.devices),
        "block_nodes": [
            [DISK, disk.major, disk.minor] for disk in (cell.disk,) if isinstance(disk, BlockDevice)
        ],
        "proc": program.needs_proc,
        "limits": {
            "RLIMIT_CORE": 0,
            "RLIMIT_FSIZE": cell.max_file_bytes,
            "RLIMIT_NOFILE": MAX_FDS,
            "RLIMIT_NPROC": MAX_TASKS,
        },
        "parent": os.getpid() if cell.dies_with_parent else None,
        "hostname": "vmm",
    }


def _binds(program: Program, cell: Cell) -> Iterator[tuple[str | Path | None, str, bool]]:
    """What of the host is mounted where, and whether for writing."""
    for source, target in program.binds:
        yield source, target, False
    yield cell.run_dir, RUN, True
    yield cell.kernel, KERNEL, False
    yield cell.initrd, INITRD, False
    if isinstance(cell.disk, Path):
        yield cell.disk, DISK, True
    yield cell.out_dir, SNAPSHOT_OUT, True
    if cell.restore is not None:
        yield cell.restore.state, IN_STATE, False
        yield cell.restore.memory, IN_MEMORY, False
