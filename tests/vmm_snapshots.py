"""Snapshots of guests under test: taken, restored, compared. Files and the API only.

A guest that does what it is told (`ToldGuest`) is told through its first drive; restored, it has
the same drive, and takes orders from there.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from page_handler import PageHandler
from vmm_guest import BLOCK, ToldGuest
from vmm_server import Server, is_ours
from wrennd.linux import files
from wrennd.qemu_vmm.memory import Tracking, best_tracking

PAGE = 4096
MEM_MIB = 128
DATA = "/data"  # a file in the guest's memory


@dataclass(frozen=True)
class Snapshot:
    """Its two files, and by which drive its guest is told. `number`: of the last order."""

    state: Path
    memory: Path
    drive: Path
    number: int

    def body(self, backend: str = "File", path: Path | None = None, **more: Any) -> dict[str, Any]:
        """For /snapshot/load."""
        return {
            "snapshot_path": os.fspath(self.state),
            "mem_backend": {
                "backend_type": backend,
                "backend_path": os.fspath(path or self.memory),
            },
            "track_dirty_pages": True,
            "resume_vm": True,
            **more,
        }

    def with_memory(self, path: Path) -> "Snapshot":
        return Snapshot(self.state, path, self.drive, self.number)


def boot(
    server: Server,
    kernel: Any,
    initrd: Path,
    *,
    drives: Sequence[Path] = (),
    interfaces: Sequence[dict[str, Any]] = (),
    **machine: Any,
) -> ToldGuest:
    """A guest with tracked memory, a balloon and entropy, with random bytes in DATA.

    drives: named a, b, ...
    """
    guest = ToldGuest(server)
    guest.configure(kernel, initrd)
    machine = {"vcpu_count": 1, "mem_size_mib": MEM_MIB, "track_dirty_pages": True, **machine}
    server.done("PUT", "/machine-config", machine)
    for name, path in zip(ascii_lowercase, drives, strict=False):
        drive = {"drive_id": name, "is_root_device": False, "path_on_host": os.fspath(path)}
        server.done("PUT", f"/drives/{name}", drive)
    for interface in interfaces:
        server.done("PUT", f"/network-interfaces/{interface['iface_id']}", interface)
    server.done("PUT", "/balloon", {"amount_mib": 0, "deflate_on_oom": False})
    server.done("PUT", "/entropy", {})
    guest.start()
    guest.run(f"dd if=/dev/urandom of={DATA} bs=64k count=64 2>/dev/null")
    return guest


def digest(guest: ToldGuest) -> str:
    return guest.run(f"md5sum {DATA}")


def pause(server: Server) -> None:
    server.done("PATCH", "/vm", {"state": "Paused"})


def resume(server: Server) -> None:
    server.done("PATCH", "/vm", {"state": "Resumed"})


def create(server: Server, state: Path, memory: Path, kind: str) -> Any:
    """The response to it."""
    body = {
        "snapshot_type": kind,
        "snapshot_path": os.fspath(state),
        "mem_file_path": os.fspath(memory),
    }
    return server.put("/snapshot/create", body)


def take(guest: ToldGuest, directory: Path, kind: str = "Full", name: str = "") -> Snapshot:
    """Of a paused guest."""
    made = Snapshot(
        directory / f"{name}.state", directory / f"{name}.memory", guest.drive, guest.number
    )
    response = create(guest.server, made.state, made.memory, kind)
    assert response.status == 204, response
    return made


@contextmanager
def restored(
    directory: Path,
    snapshot: Snapshot,
    *extra: str,
    handler: PageHandler | None = None,
    **more: Any,
) -> Iterator[ToldGuest]:
    """The guest in another VMM: from the snapshot's memory file, or by a handler that serves."""
    directory.mkdir(exist_ok=True)
    with Server(directory, "--level", "Debug", *extra) as server:
        server.wait_for_api()
        guest = continued(server, snapshot)
        backend = ("File", None) if handler is None else ("Uffd", handler.path)
        server.done("PUT", "/snapshot/load", snapshot.body(*backend, **more))
        yield guest


def continued(server: Server, snapshot: Snapshot) -> ToldGuest:
    """The guest that `server` is about to load, with a console of its own. It has nothing to do."""
    order = f"{snapshot.number}\n{snapshot.number}\n".encode()
    with snapshot.drive.open("r+b") as drive:
        drive.write(order + b"\n" * (BLOCK - len(order)))
    guest = ToldGuest(server, drive=snapshot.drive, number=snapshot.number)
    server.done("PUT", "/serial", {"serial_out_path": os.fspath(guest.console)})
    return guest


def data_pages(path: Path) -> set[int]:
    """Numbers of the pages that are no holes."""
    with path.open("rb") as file:
        runs = list(files.data_runs(file.fileno(), path.stat().st_size))
    return {page for start, end in runs for page in range(start // PAGE, -(-end // PAGE))}


def counts_exactly() -> bool:
    """Whether the VMM under test knows which pages were written, and not only which there are."""
    return not is_ours() or best_tracking() is Tracking.EXACT


def by_id(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration; Firecracker shows the devices of a running guest in any order."""
    drives = sorted(config["drives"], key=lambda drive: drive["drive_id"])
    interfaces = sorted(config["network-interfaces"], key=lambda found: found["iface_id"])
    return {**config, "drives": drives, "network-interfaces": interfaces}


def overlaid(base: bytes, diff: Path) -> bytes:
    """`base` with what is in the file `diff`."""
    found = bytearray(base)
    with diff.open("rb") as file:
        for start, end in files.data_runs(file.fileno(), len(base)):
            file.seek(start)
            found[start:end] = file.read(end - start)
    return bytes(found)


def sha(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differing(one: bytes, other: bytes) -> list[int]:
    """Numbers of the pages that differ: for assertions whose failure can be read."""
    assert len(one) == len(other)
    return [
        at // PAGE
        for at in range(0, len(one), PAGE)
        if one[at : at + PAGE] != other[at : at + PAGE]
    ]
