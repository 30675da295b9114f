"""The state of QEMU's devices, out of one QEMU and into another, over QMP.

Memory never is in the stream: it is shared as far as QEMU knows, and `x-ignore-shared` leaves such
out. The stream goes through a memfd, since QEMU writes and reads a plain file as fast as it can.
"""

import os

from wrennd.core.deadline import Deadline
from wrennd.qemu_vmm.qemu import Qemu
from wrennd.qemu_vmm.qmp import QmpBroken, QmpRefused

SAVE_TIMEOUT_S = 60.0
# A restored QEMU reads guest memory while it loads, and waits for its page-fault handler.
LOAD_TIMEOUT_S = 60.0
_NAME = "state"


def enable(qemu: Qemu) -> None:
    """Once, right after its start. Errors: as `Qemu.execute`."""
    capabilities = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
    qemu.execute("migrate-set-capabilities", capabilities=capabilities)


def save(qemu: Qemu) -> bytes:
    """The stream of a stopped guest. QEMU gives it once: then the guest must have run again.

    Errors: as `Qemu.execute`.
    """
    fd = os.memfd_create("wrenn-state", os.MFD_CLOEXEC)
    try:
        _hand_over(qemu, fd)
        qemu.execute("migrate", uri=f"fd:{_NAME}")
        _finish(qemu, "saving the state of its devices", Deadline.after(SAVE_TIMEOUT_S))
        # The stream is whole, but QEMU takes no `cont` before it has come to rest itself.
        _rest(qemu, Deadline.after(SAVE_TIMEOUT_S))
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def load(qemu: Qemu, stream: bytes) -> None:
    """Into a QEMU that waits for it; afterwards its guest is stopped. Errors: as `Qemu.execute`."""
    fd = os.memfd_create("wrenn-state", os.MFD_CLOEXEC)
    try:
        view = memoryview(stream)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        _hand_over(qemu, fd)
    finally:
        os.close(fd)
    deadline = Deadline.after(LOAD_TIMEOUT_S)
    qemu.execute("migrate-incoming", deadline=deadline, uri=f"fd:{_NAME}")
    _finish(qemu, "loading the state of its devices", deadline)


def _hand_over(qemu: Qemu, fd: int) -> None:
    qemu.execute("getfd", [fd], fdname=_NAME)


def _finish(qemu: Qemu, what: str, deadline: Deadline) -> None:
    status = qemu.wait_for_event("MIGRATION", is_last, deadline, what).data.get("status")
    if status != "completed":
        answer = qemu.execute("query-migrate", deadline=deadline)
        reason = answer.get("error-desc") if isinstance(answer, dict) else None
        raise QmpRefused(f"{what}: {reason or status}")


def is_last(data: dict[str, object]) -> bool:
    """Whether a migration's event is its last."""
    return data.get("status") in ("completed", "failed", "cancelled")


def _rest(qemu: Qemu, deadline: Deadline) -> None:
    while True:
        status = qemu.execute("query-status", deadline=deadline)
        name = status.get("status") if isinstance(status, dict) else None
        if name == "postmigrate":
            return
        if name != "finish-migrate":
            raise QmpBroken(f"QEMU is {name!r} after its state was saved")
        deadline.check("QEMU's rest after its state was saved")
