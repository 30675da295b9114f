"""What the pager is tried on without VMs: snapshots with known pages, and stand-ins for VMMs.

`vmm_memory.c` is a VMM's memory half; `Guest` talks to it. Everything lies in a directory that the
VMM's uid can reach, unlike pytest's own.
"""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wrennd.host.pagers import Place, Source
from wrennd.snapshot.header import Header

PAGE = 4096
UID = 1_879_098_321
SOURCE = Path(__file__).parent / "fakes/vmm_memory.c"


def compiled(directory: Path) -> Path:
    """The stand-in, built."""
    program = directory / "vmm_memory"
    subprocess.run(
        ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program, SOURCE], check=True
    )
    return program


@contextmanager
def run_directory() -> Iterator[Path]:
    """As a sandbox's: the VMM's uid owns it."""
    made = Path(tempfile.mkdtemp(prefix="pager-", dir="/tmp"))
    os.chown(made, UID, UID)
    try:
        yield made
    finally:
        shutil.rmtree(made)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """header and memfiles of a snapshot, and `image`, the same memory in one file."""

    header: Header
    memfiles: tuple[Path, ...]
    image: Path

    def source(self, touched: Path | None = None) -> Source:
        return Source(header=self.header.encode(), memfiles=self.memfiles, touched=touched)


def page_content(source: int, page: int) -> bytes:
    return struct.pack("<Q", source << 48 | page << 4 | 1) * (PAGE // 8)


def make_snapshot(directory: Path, table: bytes, *, only: Sequence[int] | None = None) -> Snapshot:
    """A snapshot with this table. `only`: the pages whose content matters; others are holes."""
    builds = tuple(f"{number:032x}" for number in range(1, max(table, default=0) + 1))
    header = Header(builds, table)
    memfiles = tuple(directory / f"memfile.{build}" for build in builds)
    image = directory / "image"
    files = [os.open(path, os.O_RDWR | os.O_CREAT) for path in (image, *memfiles)]
    try:
        for file in files:
            os.ftruncate(file, len(table) * PAGE)
        for page in range(len(table)) if only is None else only:
            if table[page]:
                content = page_content(table[page], page)
                for file in (files[0], files[table[page]]):
                    os.pwrite(file, content, page * PAGE)
    finally:
        for file in files:
            os.close(file)
    return Snapshot(header=header, memfiles=memfiles, image=image)


def random_table(pages: int, builds: int, seed: int, longest: int = 90) -> bytes:
    """Runs of random lengths from random sources, each source at least once."""
    dice = random.Random(seed)
    table = bytearray()
    for source in range(builds + 1):
        table += bytes([source]) * dice.randint(1, longest)
    while len(table) < pages:
        table += bytes([dice.randint(0, builds)]) * dice.randint(1, longest)
    return bytes(table[:pages])


def place(run_dir: Path, **changes) -> Place:
    plain = {"run_dir": run_dir, "uid": UID, "dies_with_parent": True, "has_balloon": False}
    return Place(**plain | changes)


class Guest:
    """A running stand-in. `ask` returns its answer; a guest that was killed answers nothing."""

    def __init__(self, program, run_dir, image, regions, *, wp=False):
        self.process = subprocess.Popen(
            [program, str(UID), run_dir / "uffd.sock", image, str(int(wp)), *map(str, regions)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pidfd = os.pidfd_open(self.process.pid)

    def say(self, order: str) -> None:
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        return self.process.stdout.readline().strip()

    def ask(self, order: str) -> str:
        self.say(order)
        return self.hear()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        os.close(self.pidfd)
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


# A VMM that has been taken over: connects with the uid it should have, and sends what it is told.
_STRANGE = """
import array, fcntl, json, os, socket, struct, sys
want = json.loads(sys.argv[1])
fds = []
for kind in want["fds"]:
    if kind == "uffd":
        device = os.open("/dev/userfaultfd", os.O_RDWR)
        uffd = fcntl.ioctl(device, 0xAA00, 0o2000000 | 0o4000)
        fcntl.ioctl(uffd, 0xC018AA3F, struct.pack("QQQ", 0xAA, 1 << 3, 0))
        fds.append(uffd)
    else:
        fds.append(os.open("/dev/null", os.O_RDONLY))
if want["uid"]:
    os.setresgid(want["uid"], want["uid"], want["uid"])
    os.setresuid(want["uid"], want["uid"], want["uid"])
peer = socket.socket(socket.AF_UNIX)
peer.connect(want["path"])
print("connected", flush=True)
if want["data"]:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    peer.sendmsg([want["data"].encode()], rights)
if want["leaves"]:
    peer.close()
sys.stdin.read()
"""


@contextmanager
def strange_vmm(run_dir, *, data="", fds=(), leaves=False, uid=UID):
    want = {
        "path": os.fspath(run_dir / "uffd.sock"),
        "data": data,
        "fds": list(fds),
        "leaves": leaves,
        "uid": uid,
    }
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _STRANGE, json.dumps(want)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout.readline() == "connected\n"
            yield child
        finally:
            child.kill()


def until(is_true, what: str, timeout_s: float = 60) -> None:
    """Look again and again until it is true."""
    end = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end, f"{what} did not come true"
        time.sleep(0.005)


def stands_still(guest: Guest) -> bool:
    """Whether one of its threads waits for a missing page."""
    tasks = Path(f"/proc/{guest.process.pid}/task")
    return any((task / "wchan").read_text() == "handle_userfault" for task in tasks.iterdir())


def was_killed(guest: Guest) -> bool:
    """Waits for its end."""
    return guest.process.wait(timeout=60) == -signal.SIGKILL
