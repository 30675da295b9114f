"""`--config-file`: a whole microVM in one document, configured and started without the API."""

from collections.abc import Iterator
from pathlib import Path

from wrennd.qemu_vmm import schema
from wrennd.qemu_vmm.controller import Controller
from wrennd.qemu_vmm.document import DOCUMENT, Document
from wrennd.qemu_vmm.faults import Fault, Prefix, unsupported
from wrennd.qemu_vmm.json_reader import JsonError
from wrennd.qemu_vmm.mmds import read_put
from wrennd.qemu_vmm.options import ExitCode, Stop
from wrennd.qemu_vmm.phases import Call

MAX_SIZE = 1 << 20


def run(path: Path, controller: Controller) -> None:
    """Do what the file says, and start the guest. Errors: Stop, with BAD_CONFIGURATION."""
    failed = "Configuration for VMM from one single json failed: "
    data = _read(path, "configuration")
    if len(data) > MAX_SIZE:
        text = f"{failed}{path} is larger than {MAX_SIZE} bytes"
        raise Stop(ExitCode.BAD_CONFIGURATION, text)
    try:
        config = schema.decode(DOCUMENT, data)
        for feature, is_given in _refused(config):
            if is_given:
                raise unsupported(Prefix.START, feature)
        for action in _actions(config):
            controller.perform(action)
    except JsonError as error:
        raise Stop(ExitCode.BAD_CONFIGURATION, f"{failed}Invalid JSON: {error}") from None
    except Fault as fault:
        raise Stop(ExitCode.BAD_CONFIGURATION, f"{failed}{fault}") from None
    controller.log.info("Successfully started microvm that was configured from one single json")


def load_metadata(path: Path, controller: Controller) -> None:
    """`--metadata`: what the metadata service begins with. Errors: Stop, BAD_CONFIGURATION."""
    try:
        controller.perform(schema.decode(read_put, _read(path, "mmds content")))
    except JsonError as error:
        text = f"{Prefix.MMDS}metadata provided not valid json: {error}"
        raise Stop(ExitCode.BAD_CONFIGURATION, text) from None
    except Fault as fault:
        raise Stop(ExitCode.BAD_CONFIGURATION, str(fault)) from None
    controller.log.info("Successfully added metadata to mmds from file")


def _read(path: Path, what: str) -> bytes:
    """At most one byte more than may be."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_SIZE + 1)
    except OSError as error:
        text = f"Unable to open or read from the {what} file: {error}"
        raise Stop(ExitCode.BAD_CONFIGURATION, text) from None


def _refused(config: Document) -> Iterator[tuple[str, bool]]:
    yield "cpu-config", config.cpu_config
    yield "vsock", config.vsock
    yield "pmem", config.pmem
    yield "memory hotplug", config.memory_hotplug


def _actions(config: Document) -> Iterator[object]:
    """In Firecracker's order."""
    for action in (config.logger, config.metrics, config.machine_config, config.boot_source):
        if action is not None:
            yield action
    yield from config.drives
    yield from config.network_interfaces
    for device in (config.balloon, config.mmds_config, config.entropy):
        if device is not None:
            yield device
    yield Call.START
