"""Snapshots for tests, made without a VMM: its files written as it would write them."""

import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from wrennd.snapshot.header import PAGE_SIZE, ZERO
from wrennd.snapshot.manifest import MIB, Facts, VmmFacts
from wrennd.snapshot.reader import Pages
from wrennd.snapshot.store import draft

FACTS = Facts(
    vmm=VmmFacts(
        kind="qemu",
        version="7.2.22",
        binary="0" * 32,
        snapshot_version="1",
        devices=("block", "net", "entropy"),
    ),
    tier="emulated",
    cpu_model="Test CPU @ 1 GHz",
    host_kernel="6.1.0-1",
    guest_kernel="6.1.0-2",
    template="base",
    sandbox="a" * 20,
    overlay="copy",
    vcpus=1,
    mem_mib=1,
)
PAGES = MIB // PAGE_SIZE  # of FACTS' guest
ZERO_PAGE = bytes(PAGE_SIZE)
TOKEN = "t0ken"


def page_of(number: int) -> bytes:
    """A page that no other number has, and that is not zero."""
    return (number + 1).to_bytes(8, "little") * (PAGE_SIZE // 8)


def write_diff(path: Path, written: dict[int, bytes], size: int = MIB) -> Path:
    """What a VMM leaves of a Diff: the written pages are data, also zeros; all else are holes."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        fill_diff(fd, written, size)
    finally:
        os.close(fd)
    return path


def fill_diff(fd: int, written: dict[int, bytes], size: int = MIB) -> None:
    os.ftruncate(fd, size)
    for page, data in written.items():
        os.pwrite(fd, data, page * PAGE_SIZE)


def write_output(out: Path, written: dict[int, bytes]) -> Path:
    """What a VMM leaves behind after a snapshot of a guest that wrote these pages."""
    out.mkdir(exist_ok=True)
    write_diff(out / "memory", written)
    (out / "state").write_bytes(b"vcpus and devices")
    return out


@contextmanager
def filled_draft(directory, out, *, parent=None, whole=False, mem_mib=1):
    """A draft of a pause, complete but for the commit, of what a VMM left in `out`."""
    with draft(directory) as made:
        made.take_state(out / "state")
        if whole:
            made.take_whole_memory(out / "memory", mem_mib=mem_mib)
        else:
            made.take_memory(out / "memory", parent=parent, mem_mib=mem_mib)
        made.disk.write_bytes(b"disk" * 5000)
        made.write_token(TOKEN)
        yield made


def take(directory, out, *, parent=None, whole=False, **facts):
    """A committed snapshot of what a VMM left in `out`."""
    facts = replace(FACTS, **facts)
    with filled_draft(directory, out, parent=parent, whole=whole, mem_mib=facts.mem_mib) as made:
        return made.commit(facts)


def pause(directory, written, *, parent=None, whole=False, **facts):
    """A committed snapshot whose guest wrote `written` since `parent`."""
    out = write_output(directory.parent / "out", written)
    return take(directory, out, parent=parent, whole=whole, **facts)


def image_of(snapshot) -> list[bytes]:
    """The guest's memory, page by page, as a pager would serve it."""
    table = snapshot.header.table
    with Pages.opened(snapshot) as pages:
        return [
            ZERO_PAGE if source == ZERO else pages.read(page) for page, source in enumerate(table)
        ]


def image(written: dict[int, bytes]) -> list[bytes]:
    """A fresh guest's memory after it wrote these pages."""
    return [written.get(page, ZERO_PAGE) for page in range(PAGES)]


def overwrite(path: Path, data: bytes, at: int) -> None:
    """Damage a file in place, as a disk would: under all of its names."""
    mode = path.stat().st_mode
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    path.chmod(mode)


def rewrite(path: Path, data: bytes) -> None:
    """Another file under this name; other names keep theirs."""
    path.unlink()
    path.write_bytes(data)


def reworded(directory: Path, change) -> None:
    """Let `change` work on the manifest's JSON, and make its checksum right."""
    path = directory / "manifest.json"
    value = json.loads(path.read_bytes())
    value.pop("checksum")
    change(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    value["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    rewrite(path, json.dumps(value).encode())
