"""The least that a resume could cost here: what a short script would do.

It clones the disk, starts the same VMM program as root, with nothing around it but a mount
namespace for the path of the disk and a network namespace that is there already, has it load the
state and one flat file (File backend, no dirty pages tracked), and asks for `/health` until the
agent answers. No confinement, cgroup, pager, record, lock, token, clock or thaw.
"""

import http.client
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from wrennd.core.deadline import Deadline
from wrennd.core.ids import new_sandbox_id
from wrennd.host.envd_client import PORT
from wrennd.linux import process
from wrennd.network.slot import Network, Slot, open_slot
from wrennd.snapshot.reader import Snapshot
from wrennd.storage import overlay
from wrennd.vmm.program import Program, own_package

LOOK_S = 0.001
TIMEOUT_S = 120.0
SCRIPT = """
mount -t tmpfs none /tmp/fc-vm
ln -s "$1" /tmp/fc-vm/rootfs.ext4
shift
exec "$@"
"""


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What is there before the clock runs. The snapshot's memory is one file.

    directory: for the socket, whose path must be short.
    """

    snapshot: Snapshot
    program: Program
    driver: overlay.Driver
    slot: Slot
    directory: Path

    def restore(self) -> float:
        """Seconds until the agent answers; then all of it is gone again."""
        disk, api = self.snapshot.directory / "../floor.ext4", self.directory / "api.sock"
        began = time.monotonic()
        with ExitStack() as held:
            held.callback(api.unlink, missing_ok=True)
            self.driver.clone(self.snapshot.disk, disk, uid=0)
            held.callback(self.driver.remove, disk)
            held.callback(process.spawn(self._command(disk, api)).close)
            self._load(api)
            self._wait_for_agent()
            return time.monotonic() - began

    def _command(self, disk: Path, api: Path) -> list[str]:
        """The VMM's own command line, but with our package where it lies."""
        package = os.fspath(own_package().parent)
        program = [part.replace("'/app'", repr(package)) for part in self.program.argv]
        shell = ["unshare", "--mount", "sh", "-eu", "-c", SCRIPT, "sh", os.fspath(disk)]
        enter = ["nsenter", f"--net={self.slot.netns_path}"]
        return [*enter, *shell, *program, "--api-sock", os.fspath(api), "--id", "floor"]

    def _load(self, api: Path) -> None:
        (memory,) = self.snapshot.memfiles
        body = {
            "snapshot_path": os.fspath(self.snapshot.state),
            "mem_backend": {"backend_type": "File", "backend_path": os.fspath(memory)},
            "network_overrides": [{"iface_id": "eth0", "host_dev_name": self.slot.tap}],
            "resume_vm": True,
        }
        with _connected(api) as sock:
            connection = http.client.HTTPConnection("localhost")
            connection.sock = sock
            connection.request("PUT", "/snapshot/load", json.dumps(body))
            answer = connection.getresponse()
            if answer.status != 204:
                raise RuntimeError(f"the VMM refused the snapshot: {answer.read()!r}")

    def _wait_for_agent(self) -> None:
        deadline = Deadline.after(TIMEOUT_S)
        while True:
            deadline.check("an answer of the agent")
            connection = http.client.HTTPConnection(str(self.slot.address), PORT, timeout=1)
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == 204:
                    return
            except OSError:
                time.sleep(LOOK_S)
            finally:
                connection.close()


@contextmanager
def _connected(api: Path) -> Iterator[socket.socket]:
    deadline = Deadline.after(TIMEOUT_S)
    with socket.socket(socket.AF_UNIX) as sock:
        while True:
            try:
                sock.connect(os.fspath(api))
            except (FileNotFoundError, ConnectionRefusedError):
                deadline.check("the VMM's socket")
                time.sleep(LOOK_S)
            else:
                yield sock
                return


@contextmanager
def floor_of(
    snapshot: Snapshot, program: Program, driver: overlay.Driver, network: Network
) -> Iterator[Floor]:
    """Everything that the script finds in place; gone at the end of the block.

    Meanwhile no sandbox may be created: that reclaims what belongs to none.
    """
    mount_point = Path("/tmp/fc-vm")
    with ExitStack() as held:
        if not mount_point.exists():
            mount_point.mkdir()
            held.callback(mount_point.rmdir)
        directory = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="wrenn-")))
        slot = held.enter_context(
            open_slot(network, new_sandbox_id(), dns=(), deadline=Deadline.after(TIMEOUT_S))
        )
        yield Floor(
            snapshot=snapshot, program=program, driver=driver, slot=slot, directory=directory
        )
