"""Drives of a guest that runs: another file behind the same disk, other limits.

The guest keeps its device; below it, QEMU's block nodes are exchanged. Requests that are under way
end on the old file. When QEMU refuses a step, the disk is put back on the old one.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from wrennd.qemu_vmm import throttle
from wrennd.qemu_vmm.configuration import BackingFault, OpenDrive, open_backing
from wrennd.qemu_vmm.faults import Fault, Prefix
from wrennd.qemu_vmm.machine import drive_device, drive_node, node_name, throttle_group
from wrennd.qemu_vmm.resources import DrivePatch, RateLimiter

Execute = Callable[..., Any]  # `Qemu.execute`
_SCRATCH = "scratch"


def patch(execute: Execute, drives: list[OpenDrive], wanted: DrivePatch) -> None:
    """Do what a PATCH asks for, and note it in `drives`. Errors: Fault, those of `execute`."""
    ids = [opened.drive.drive_id for opened in drives]
    if wanted.path_on_host is None and wanted.rate_limiter is None:
        raise _fault("Block: Running method expected different backend.")
    if wanted.drive_id not in ids:
        raise _fault("Failed perform action on device: Device not found")
    index = ids.index(wanted.drive_id)
    if wanted.path_on_host is not None:
        drives[index] = _on_file(execute, drives[index], index, wanted.path_on_host)
    if wanted.rate_limiter is not None:
        drives[index] = _limited(execute, drives[index], index, wanted.rate_limiter)


def _limited(execute: Execute, opened: OpenDrive, index: int, change: RateLimiter) -> OpenDrive:
    limiter = throttle.updated(opened.limiter, change)
    execute(
        "qom-set",
        path=f"/objects/{throttle_group(index)}",
        property="limits",
        value=throttle.limits(limiter),
    )
    with _stopped(execute):
        pass  # requests that wait would do so by the old limits: a stop lets them go
    return replace(opened, drive=replace(opened.drive, rate_limiter=limiter))


def _on_file(execute: Execute, old: OpenDrive, index: int, path: str) -> OpenDrive:
    """The drive on another file; closes the old one."""
    try:
        new = open_backing(old.drive, path)
    except BackingFault as fault:
        raise _fault(f"Block: {fault}") from None
    with ExitStack() as undo:
        undo.callback(os.close, new.fd)
        new = replace(
            new, generation=old.generation + 1, added_fdset=_add_fdset(execute, new.fd, undo)
        )
        _add_node(execute, drive_node(new, index), undo)
        undo.callback(_set_node, execute, index, node_name(old, index))
        _attach(execute, new, index)
        undo.pop_all()
    _drop_node(execute, node_name(old, index))
    _drop_fdset(execute, old.fdset)
    os.close(old.fd)
    return new


def _attach(execute: Execute, new: OpenDrive, index: int) -> None:
    """Put the device on its new node, and tell the guest to look at the size.

    QEMU tells it only when a node is resized. A read-only one can't be; so the device is put on
    a scratch node first, and that is resized, while the guest stands still.
    """
    node = node_name(new, index)
    if not new.is_read_only:
        _set_node(execute, index, node)
        execute("block_resize", **{"node-name": node}, size=new.size)
        return
    with _scratch_node(execute) as scratch, _stopped(execute):
        _set_node(execute, index, scratch)
        execute("block_resize", **{"node-name": scratch}, size=new.size)
        _set_node(execute, index, node)


@contextmanager
def _scratch_node(execute: Execute) -> Iterator[str]:
    with ExitStack() as undo:
        fd = os.memfd_create(_SCRATCH, os.MFD_CLOEXEC)
        undo.callback(os.close, fd)
        fdset = _add_fdset(execute, fd, undo)
        filename = f"/dev/fdset/{fdset}"
        node = {"node-name": _SCRATCH, "driver": "file", "filename": filename, "locking": "off"}
        _add_node(execute, node, undo)
        yield _SCRATCH


@contextmanager
def _stopped(execute: Execute) -> Iterator[None]:
    """The guest stands still, and goes on if it ran."""
    status = execute("query-status")
    if not (isinstance(status, dict) and status.get("running")):
        yield
        return
    execute("stop")
    try:
        yield
    finally:
        execute("cont")


def _set_node(execute: Execute, index: int, node: str) -> None:
    path = f"/machine/peripheral/{drive_device(index)}"
    execute("qom-set", path=path, property="drive", value=node)


def _add_fdset(execute: Execute, fd: int, undo: ExitStack) -> int:
    fdset = int(execute("add-fd", fds=(fd,))["fdset-id"])
    undo.callback(_drop_fdset, execute, fdset)
    return fdset


def _drop_fdset(execute: Execute, fdset: int) -> None:
    execute("remove-fd", **{"fdset-id": fdset})


def _add_node(execute: Execute, node: Mapping[str, object], undo: ExitStack) -> None:
    execute("blockdev-add", **node)
    undo.callback(_drop_node, execute, str(node["node-name"]))


def _drop_node(execute: Execute, name: str) -> None:
    execute("blockdev-del", **{"node-name": name})


def _fault(problem: str) -> Fault:
    return Fault(
        f"{Prefix.DRIVE}Unable to patch the block device: {problem} "
        "Please verify the request arguments."
    )
