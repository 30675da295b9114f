"""A QEMU that ends while it is started: how it ended is told, not what that broke on our side.

A script stands in for QEMU, with the RAM shim in it as in QEMU.
"""

from dataclasses import dataclass

import pytest

from wrennd.qemu_vmm import qemu
from wrennd.qemu_vmm.memory import Origin, Plan, Tracking

SIZE = 1 << 20
REPORT = """
import socket, struct
variables = open("/proc/self/environ", "rb").read().split(b"\\0")
(told,) = [one for one in variables if one.startswith(b"WRENN_RAM_SHIM=")]
server = socket.socket(fileno=int(told.split(b":")[2]))
server.shutdown(socket.SHUT_RD)
server.send(struct.pack("QQ", 1 << 32, 1 << 20))
"""


@dataclass(frozen=True)
class FakeMachine:
    """A machine that nobody builds."""

    inherited_fds: tuple[int, ...]

    def arguments(self):
        return []


def started(tmp_path, script):
    program = tmp_path / "qemu"
    program.write_text(f"#!/usr/bin/python3 -IS\n{script}")
    program.chmod(0o755)
    return qemu.start(
        program,
        lambda qmp, console: FakeMachine((qmp, console)),
        Plan(SIZE, Origin(), Tracking.POPULATED),
        on_console=lambda data: None,
        on_words=lambda words: None,
    )


@pytest.mark.parametrize("before", ["", REPORT], ids=["before its memory is there", "after that"])
def test_its_last_words_are_told(tmp_path, leak_check, before):
    script = f"{before}\nimport os; os.write(2, b'out of luck\\n'); os._exit(3)\n"
    with pytest.raises(qemu.QemuEnded, match="QEMU exited with code 3: out of luck"):
        started(tmp_path, script)
