"""`/snapshot/load`: from the files of a snapshot to a guest.

Every failure is final: the answer is sent, then the program ends. Nothing needs to be undone here
but what was opened.
"""

import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from wrennd.qemu_vmm import migration, qemu, schema, start, state_file
from wrennd.qemu_vmm.configuration import Configuration
from wrennd.qemu_vmm.document import DOCUMENT, Document
from wrennd.qemu_vmm.faults import Fault, Prefix, os_text
from wrennd.qemu_vmm.json_reader import JsonError
from wrennd.qemu_vmm.json_writer import to_json
from wrennd.qemu_vmm.machine import Accel
from wrennd.qemu_vmm.memory import HandshakeFailed, Origin
from wrennd.qemu_vmm.qemu import Qemu
from wrennd.qemu_vmm.resources import NetworkInterface
from wrennd.qemu_vmm.snapshot_requests import (
    BackendType,
    MemBackend,
    NetworkOverride,
    SnapshotLoad,
)
from wrennd.qemu_vmm.start import Host
from wrennd.qemu_vmm.state_file import Description, StateFileError

HANDLER_TIMEOUT_S = 30  # to connect: it has a backlog, or is about to take the connection

_FAILED = f"{Prefix.LOAD_SNAPSHOT}Failed to restore from snapshot: "
_STATE = f"{_FAILED}Failed to get snapshot state from file: "
_FILE = f"{_FAILED}Failed to load guest memory: Error creating guest memory from file: "
_UFFD = f"{_FAILED}Failed to load guest memory: Error creating guest memory from uffd: "
_BUILD = f"{_FAILED}Failed to build microVM from snapshot: "


def load(
    wanted: SnapshotLoad,
    configuration: Configuration,
    host: Host,
    configure: Callable[[object], object],
) -> Qemu:
    """A stopped guest, restored; `configuration` is what it is made of.

    `configure` applies one resource to it. Errors: Fault.
    """
    description, stream = _read_state(wanted.snapshot_path)
    config = _config(description)
    _check(wanted, description, host)
    for resource in _resources(config, wanted):
        _restore(resource, configure)
    configuration.restore(config.boot_source, description.macs)
    with ExitStack() as inputs:
        origin = _origin(wanted.backend, configuration.machine.mem_size_mib << 20, inputs)
        try:
            return _start(configuration, host, origin, description, stream)
        except HandshakeFailed as error:
            raise Fault(f"{_UFFD}Failed to sends file descriptor: {os_text(error)}") from error
        except qemu.FAILURES as error:
            raise Fault(f"{_BUILD}Failed to restore devices: {error}") from error


def _start(
    configuration: Configuration,
    host: Host,
    origin: Origin,
    description: Description,
    stream: bytes,
) -> Qemu:
    guest = start.spawn(configuration, host, None, origin)
    with ExitStack() as held:
        held.callback(guest.close)
        _check_series(guest, description)
        migration.load(guest, stream)
        held.pop_all()
    return guest


def _read_state(path: str) -> tuple[Description, bytes]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a path as the client wrote it
            data = file.read(state_file.MAX_SIZE + 1)
    except (OSError, ValueError) as error:
        text = os_text(error) if isinstance(error, OSError) else str(error)
        raise Fault(f"{_STATE}Failed to open snapshot file: {text}") from None
    try:
        return state_file.decode(data)
    except StateFileError as error:
        raise Fault(f"{_STATE}Failed to load snapshot state from file: {error}") from None


def _config(description: Description) -> Document:
    """The machine, read as from a configuration file."""
    try:
        return schema.decode(DOCUMENT, to_json(description.config))
    except JsonError as error:
        raise Fault(f"{_STATE}Failed to load snapshot state from file: {error}") from None


def _check(wanted: SnapshotLoad, description: Description, host: Host) -> None:
    if wanted.vsock_override is not None:
        raise Fault(f"{_STATE}Unknown Vsock Device.")
    if description.accel != host.accel:
        raise Fault(
            f"{_FAILED}Invalid snapshot state: it was taken with --accel {description.accel}, "
            f"this VMM runs with {host.accel}"
        )
    if wanted.clock_realtime and host.accel is Accel.KVM:
        raise Fault(f"{_FAILED}clock_realtime is not supported by the QEMU-based VMM.")


def _resources(config: Document, wanted: SnapshotLoad) -> list[object]:
    """What the guest is made of; whether its pages are tracked is not part of a snapshot."""
    if config.machine_config is None:
        raise Fault(f"{_FAILED}Invalid snapshot state: No memory region defined.")
    interfaces = _on_other_taps(config.network_interfaces, wanted.network_overrides)
    machine = replace(config.machine_config, track_dirty_pages=wanted.is_tracked)
    devices = (config.balloon, config.entropy)
    return [
        *(machine, *config.drives, *interfaces),
        *(device for device in devices if device is not None),
    ]


def _on_other_taps(
    interfaces: Sequence[NetworkInterface], overrides: Sequence[NetworkOverride]
) -> list[NetworkInterface]:
    taps = {override.iface_id: override.host_dev_name for override in overrides}
    if not taps.keys() <= {interface.iface_id for interface in interfaces}:
        raise Fault(f"{_STATE}Unknown Network Device.")
    return [
        replace(interface, host_dev_name=taps.get(interface.iface_id, interface.host_dev_name))
        for interface in interfaces
    ]


def _restore(resource: object, configure: Callable[[object], object]) -> None:
    try:
        configure(resource)
    except Fault as fault:
        text = str(fault)
        for prefix in Prefix:
            text = text.removeprefix(prefix)
        raise Fault(f"{_BUILD}Failed to restore devices: {text}") from None


def _origin(backend: MemBackend, size: int, inputs: ExitStack) -> Origin:
    if backend.backend_type is BackendType.UFFD:
        return Origin(handler=_connect(backend.backend_path))
    try:
        fd = os.open(backend.backend_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        text = os_text(error) if isinstance(error, OSError) else str(error)
        raise Fault(f"{_FILE}Failed to load guest memory: {text}") from None
    inputs.callback(os.close, fd)
    if os.fstat(fd).st_size < size:
        # Firecracker's words for a file that is shorter than the memory.
        raise Fault(
            f"{_FILE}Failed to restore guest memory: Total sum of memory regions exceeds largest "
            "possible file offset"
        )
    return Origin(file=fd)


def _connect(path: str) -> socket.socket:
    """To whoever serves page faults. Must not be closed as long as the guest runs."""
    handler = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Not settimeout: such a socket would not wait for room in the handler's backlog.
    timeout = struct.pack("@ll", HANDLER_TIMEOUT_S, 0)
    handler.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
    try:
        handler.connect(path)
    except (OSError, ValueError) as error:
        handler.close()
        text = os_text(error) if isinstance(error, OSError) else str(error)
        raise Fault(f"{_UFFD}Failed to connect to UDS Unix stream: {text}") from None
    return handler


def _check_series(guest: Qemu, description: Description) -> None:
    """`microvm` is an unversioned machine type: its state changes between series."""
    if guest.version[:2] != description.qemu[:2]:
        there, here = (".".join(map(str, version)) for version in (description.qemu, guest.version))
        raise Fault(
            f"{_BUILD}Failed to restore devices: the snapshot is of QEMU {there}, this is {here}"
        )
