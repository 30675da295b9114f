"""What each call does: the one place where the phase of the microVM changes.

Owns configuration, QEMU, console, log and metrics; knows nothing of sockets. A request goes in
and a response comes out, one after the other.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wrennd.qemu_vmm import balloon, drives, load, mmds, routes, start
from wrennd.qemu_vmm.balloon import Balloon, BalloonStatsUpdate, BalloonUpdate
from wrennd.qemu_vmm.configuration import Configuration
from wrennd.qemu_vmm.faults import Fault, Prefix, os_text, unsupported
from wrennd.qemu_vmm.interfaces import Interfaces
from wrennd.qemu_vmm.json_writer import to_json
from wrennd.qemu_vmm.log import API_THREAD, Log
from wrennd.qemu_vmm.machine import Accel
from wrennd.qemu_vmm.metrics import Recorder
from wrennd.qemu_vmm.mmds import DataStore, MmdsConfig, MmdsPatch, MmdsPut
from wrennd.qemu_vmm.phases import BOOT_SPECIFIC, TABLE, Call, Phase, check
from wrennd.qemu_vmm.qemu import FAILURES, Qemu, QemuEnded
from wrennd.qemu_vmm.resources import (
    BootSource,
    Drive,
    DrivePatch,
    Entropy,
    Logger,
    MachineUpdate,
    Metrics,
    NetworkInterface,
    NetworkInterfacePatch,
    Serial,
    as_json,
)
from wrennd.qemu_vmm.routes import Action, Unsupported
from wrennd.qemu_vmm.sinks import Sink
from wrennd.qemu_vmm.snapshot import Saver
from wrennd.qemu_vmm.snapshot_requests import SnapshotCreate, SnapshotLoad
from wrennd.qemu_vmm.start import Host
from wrennd.qemu_vmm.wire import Method, Request, respond

VERSION = "1.16.1-qemu"
APP_NAME = "Firecracker"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which microVM this is, and what runs it."""

    id: str
    accel: Accel
    program: Path
    is_tracking_exact: bool
    max_mmds: int  # bytes


class Controller:
    """The VMM behind the API."""

    def __init__(self, identity: Identity, log: Log, metrics: Recorder, out: Sink) -> None:
        self.identity = identity
        self.log = log
        self.metrics = metrics
        self._out = self._console = out
        self._last_shutdown = ""
        self.phase = Phase.NOT_STARTED
        self.configuration = Configuration()
        self._interfaces: Interfaces | None = None
        self._mmds = DataStore(identity.max_mmds)
        self.qemu: Qemu | None = None
        self._saver: Saver | None = None
        self._is_configured = self.is_load_failed = False
        self._does: dict[object, Callable[[Any], object]] = {
            Call.INSTANCE_INFO: self._instance_info,
            Call.VERSION: lambda _: {"firecracker_version": VERSION},
            Call.FULL_CONFIG: lambda _: self.configuration.to_json(),
            Call.MACHINE_CONFIG: lambda _: as_json(self.configuration.machine),
            Call.START: lambda _: self.start(),
            Call.FLUSH_METRICS: lambda _: self.metrics.write(),
            Call.CTRL_ALT_DEL: lambda _: self._command("system_powerdown"),
            Call.PAUSE: lambda _: self._set_running(False),
            Call.RESUME: lambda _: self._set_running(True),
            Call.BALLOON: lambda _: self._show_balloon(),
            Call.BALLOON_STATISTICS: lambda _: self._balloon_statistics(),
            Call.BALLOON_HINTING: lambda _: balloon.refuse_hinting(self.configuration.balloon),
            Call.MMDS: lambda _: self._data_store().get(),
            Balloon: self.configuration.set_balloon,
            BalloonUpdate: self._update_balloon,
            BalloonStatsUpdate: self._update_balloon,
            MmdsConfig: self._configure_mmds,
            MmdsPatch: lambda patch: self._data_store().patch(patch.value),
            MmdsPut: lambda put: self._data_store().put(put.value),
            BootSource: self.configuration.set_boot_source,
            MachineUpdate: self.configuration.update_machine,
            Drive: self.configuration.insert_drive,
            DrivePatch: self._patch_drive,
            NetworkInterface: self.configuration.insert_interface,
            NetworkInterfacePatch: self._patch_interface,
            Entropy: self.configuration.set_entropy,
            Logger: self._configure_log,
            Metrics: self.metrics.open,
            Serial: self._set_serial,
            SnapshotCreate: self._create_snapshot,
            SnapshotLoad: self._load_snapshot,
        }

    # Requests

    def handle(self, request: Request) -> bytes:
        """The response to `request`. Errors: QmpBroken and QemuEnded don't leave: they are 400."""
        began = time.monotonic()
        self.log.info(f"The API server received a {describe(request)}.", API_THREAD)
        self._count(request, "count")
        action: Action = None
        try:
            action = routes.parse(request)
            result = self.perform(action)
        except Fault as fault:
            self._count(request, "fails")
            code = f"{fault.status} {fault.reason}"
            self.log.error(f"Received Error. Status code: {code}. Message: {fault}", API_THREAD)
            response = self._respond(fault.status, action, {"fault_message": str(fault)})
        else:
            status, name = (204, "No Content") if result is None else (200, "OK")
            self.log.info(
                f"The request was executed successfully. Status code: {status} {name}.",
                API_THREAD,
            )
            self._note_duration(action, began)
            response = self._respond(status, action, result)
        took_us = round((time.monotonic() - began) * 1e6)
        self.log.debug(f"Total previous API call duration: {took_us} us.", API_THREAD)
        return response

    def perform(self, action: Action) -> object:
        """Do it; None when there is nothing to answer. Errors: Fault."""
        if isinstance(action, Unsupported):
            check(action.when, self.phase)
            raise unsupported(action.prefix, action.feature)
        key = action if isinstance(action, Call) else type(action)
        check(TABLE[key], self.phase)
        self._is_configured |= key in BOOT_SPECIFIC
        return self._does[key](action)

    def _respond(self, status: int, action: Action, value: object) -> bytes:
        deprecation = routes.deprecation(action)
        if deprecation:
            self.log.warn(deprecation, API_THREAD)
            self.metrics.count("deprecated_api", "deprecated_http_api_calls")
        body = b"" if value is None else to_json(value)
        return respond(status, body, deprecated=bool(deprecation))

    def _count(self, request: Request, what: str) -> None:
        if request.method in (Method.PUT, Method.PATCH):
            self.metrics.count(f"{request.method.lower()}_api_requests", what)
        elif what == "count" and request.method is Method.GET:
            names = {
                "/": "instance_info_count",
                "/version": "vmm_version_count",
                "/machine-config": "machine_cfg_count",
            }
            if name := names.get(request.path):
                self.metrics.count("get_api_requests", name)

    def _note_duration(self, action: Action, began: float) -> None:
        match action:
            case Call.PAUSE | Call.RESUME:
                name, what = ("pause_vm" if action is Call.PAUSE else "resume_vm"), str(action)
            case SnapshotLoad():
                name, what = "load_snapshot", "load snapshot"
            case SnapshotCreate():
                kind = action.snapshot_type.lower()
                name, what = f"{kind}_create_snapshot", f"create {kind} snapshot"
            case _:
                return
        took_us = self.metrics.took(name, time.monotonic() - began)
        self.log.info(f"'{what}' API request took {took_us} us.", API_THREAD)

    # Effects

    def _instance_info(self, _: Call) -> dict[str, str]:
        return {
            "id": self.identity.id,
            "state": str(self.phase),
            "vmm_version": VERSION,
            "app_name": APP_NAME,
        }

    def start(self) -> None:
        """Start the guest. Errors: Fault; the phase stays, and it may be tried again."""
        began = time.monotonic()
        self._run(lambda host: start.start(self.configuration, host))
        self.phase = Phase.RUNNING
        self.metrics.took("start_vm", time.monotonic() - began)
        self.metrics.begin()

    def _run(self, make: Callable[[Host], Qemu]) -> None:
        """Have a QEMU, by `make`. Errors: Fault, and there is none."""
        host = Host(
            program=self.identity.program,
            accel=self.identity.accel,
            name=self.identity.id,
            is_tracking_exact=self.identity.is_tracking_exact,
            on_console=self._on_console,
            on_words=self._on_words,
        )
        self._console = start.open_console(self.configuration, self._out)
        try:
            self.qemu = make(host)
        except Fault:
            self._close_console()
            raise
        self._interfaces = Interfaces(self.configuration.interfaces)
        self._saver = Saver(self.qemu, self.identity.accel, self.log)

    def _load_snapshot(self, wanted: SnapshotLoad) -> None:
        """Errors: Fault; but when it came too late, this program ends with it."""
        if self._is_configured:
            raise Fault(
                f"{Prefix.LOAD_SNAPSHOT}Loading a microVM snapshot not allowed after configuring "
                "boot-specific resources."
            )
        began = time.monotonic()
        self.is_load_failed = True
        self._run(lambda host: load.load(wanted, self.configuration, host, self._configure))
        self.phase = Phase.PAUSED
        if wanted.resume_vm:
            try:
                self._set_running(True)
            except Fault as fault:
                text = str(fault).removeprefix(Prefix.INTERNAL)
                raise Fault(f"{Prefix.LOAD_SNAPSHOT}Failed to resume microVM: {text}") from fault
        self.is_load_failed = False
        self.metrics.took("vmm_load_snapshot", time.monotonic() - began)
        self.metrics.begin()

    def _configure(self, resource: object) -> object:
        return self._does[type(resource)](resource)

    def _create_snapshot(self, wanted: SnapshotCreate) -> None:
        assert self._saver is not None, "the phase table lets nothing here before the start"
        began = time.monotonic()
        self._saver.create(wanted, self.configuration, self.phase)
        name = f"vmm_{wanted.snapshot_type.lower()}_create_snapshot"
        self.metrics.took(name, time.monotonic() - began)

    def _close_console(self) -> None:
        if self._console is not self._out:
            self._console.close()
        self._console = self._out

    def _on_console(self, data: bytes) -> None:
        """Take what the guest's serial port printed."""
        dropped = self._console.write(data)
        self.metrics.count("uart", "write_count", len(data) - dropped)
        if dropped:
            self.metrics.count("uart", "missed_write_count", dropped)

    def _on_words(self, text: str) -> None:
        """Take a line that QEMU printed on its standard error."""
        self.log.error(f"QEMU: {text}")

    def _set_running(self, wanted: bool) -> None:
        """Pause or resume; idempotent both ways."""
        phase = Phase.RUNNING if wanted else Phase.PAUSED
        if self.phase is phase:
            return
        began = time.monotonic()
        self._command("cont" if wanted else "stop")
        self.phase = phase
        if wanted and self._saver is not None:
            self._saver.resumed()
        name = "vmm_resume_vm" if wanted else "vmm_pause_vm"
        self.metrics.took(name, time.monotonic() - began)

    def _command(self, command: str) -> None:
        with self._running() as qemu:
            qemu.execute(command)

    @contextmanager
    def _running(self) -> Iterator[Qemu]:
        """QEMU, whose failures are answered as ours."""
        assert self.qemu is not None, "the phase table lets nothing here before the start"
        try:
            yield self.qemu
        except FAILURES as error:
            raise Fault(f"{Prefix.INTERNAL}{error}") from error

    def _data_store(self) -> DataStore:
        """Before the start only: then it would be reached through a guest that is served."""
        if self.phase is not Phase.NOT_STARTED:
            raise mmds.not_initialized()
        return self._mmds

    def _configure_mmds(self, config: MmdsConfig) -> None:
        ids = [opened.interface.iface_id for opened in self.configuration.interfaces]
        mmds.refuse_to_serve(config, ids)

    def _show_balloon(self) -> object:
        if self.configuration.balloon is None:
            raise balloon.not_found(has_started=self.qemu is not None)
        return as_json(self.configuration.balloon)

    def _update_balloon(self, update: BalloonUpdate | BalloonStatsUpdate) -> None:
        with self._running() as qemu:
            self.configuration.balloon = balloon.updated(
                qemu.execute, self.configuration.balloon, update, self._mem_size_mib
            )
        if isinstance(update, BalloonUpdate):
            self._device_changed()

    def _balloon_statistics(self) -> object:
        with self._running() as qemu:
            return balloon.statistics(qemu.execute, self.configuration.balloon, self._mem_size_mib)

    @property
    def _mem_size_mib(self) -> int:
        return self.configuration.machine.mem_size_mib

    def _patch_drive(self, patch: DrivePatch) -> None:
        with self._running() as qemu:
            drives.patch(qemu.execute, self.configuration.drives, patch)
        if patch.path_on_host is not None:
            self._device_changed()

    def _device_changed(self) -> None:
        assert self._saver is not None, "the phase table lets nothing here before the start"
        self._saver.device_changed()

    def _patch_interface(self, patch: NetworkInterfacePatch) -> None:
        assert self._interfaces is not None, "the phase table lets nothing here before the start"
        self._interfaces.patch(patch)

    def _configure_log(self, config: Logger) -> None:
        try:
            self.log.update(config)
        except (OSError, ValueError) as error:
            text = os_text(error) if isinstance(error, OSError) else str(error)
            raise Fault(f"{Prefix.LOGGER}Failed to open target file: {text}") from None

    def _set_serial(self, serial: Serial) -> None:
        self.configuration.serial = serial

    # The end

    def end_of_qemu(self) -> int | None:
        """The exit code of this program once QEMU has ended (or must), else None."""
        if self.is_load_failed:
            self.log.error("Loading the snapshot failed; vmm exiting.")
            return 1
        if self.qemu is None:
            return None
        stopped = [event for event in self.qemu.events if event.name == "STOP"]
        for event in self.qemu.events:
            if event.name == "SHUTDOWN":
                self._last_shutdown = str(event.data.get("reason"))
        self.qemu.events.clear()
        if stopped and self.phase is Phase.RUNNING and not self.qemu.is_ended:
            return self._end_of_stopped()
        if not self.qemu.is_ended:
            return None
        self.qemu.drain()
        # Told to end by a signal, QEMU exits with 0 too; that was not the guest's doing.
        if self.qemu.exit_code == 0 and not self._last_shutdown.startswith("host"):
            self.log.info("The guest has shut down; vmm exiting.")
            return 0
        self.log.error(f"{self.qemu.describe_end()}; vmm exiting.")
        return 1

    def _end_of_stopped(self) -> int | None:
        """QEMU stopped the guest by itself: at its shutdown, or because it can't go on."""
        assert self.qemu is not None
        try:
            status = self.qemu.execute("query-status")
        except QemuEnded:
            return self.end_of_qemu()
        except FAILURES as error:
            self.log.error(f"{error}; vmm exiting.")
            return 1
        name = status.get("status") if isinstance(status, dict) else None
        if name in ("running", "shutdown"):
            return None
        self.log.error(f"QEMU stopped the guest: {name}; vmm exiting.")
        return 1

    def close(self) -> None:
        """End QEMU and let go of everything."""
        with ExitStack() as steps:
            steps.callback(self.log.close)
            steps.callback(self._close_console)
            steps.callback(self.metrics.close)
            steps.callback(self.metrics.write)
            steps.callback(self.configuration.close)
            if self._interfaces is not None:
                steps.callback(self._interfaces.close)
            if self.qemu is not None:
                steps.callback(self.qemu.close)


def describe(request: Request) -> str:
    """As it is logged. Bodies that hold what is the guest's (mmds) are left out."""
    text = f"{request.method.title()} request on {_quoted(request.path)}"
    token = request.path.strip("/").split("/")[0]
    if request.body is None or token in ("mmds", "cpu-config"):
        return text
    return f"{text} with body {_quoted(request.body.decode(errors='replace'))}"


def _quoted(text: str) -> str:
    return to_json(text).decode(errors="replace")
