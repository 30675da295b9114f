"""From a request to what it asks for: paths, ids, bodies; no effect and no state.

The order of checks is Firecracker's, and with it the text that a wrong request is answered with:
body where none may be, unknown path, empty or bad id, JSON, id in the path against id in the body.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from wrennd.qemu_vmm import balloon, mmds, resources, schema
from wrennd.qemu_vmm.faults import Fault, Prefix
from wrennd.qemu_vmm.json_reader import JsonError
from wrennd.qemu_vmm.phases import Call, When
from wrennd.qemu_vmm.resources import ActionType, MachineUpdate, WantedState
from wrennd.qemu_vmm.schema import Kind
from wrennd.qemu_vmm.snapshot_requests import SNAPSHOT_CREATE, SNAPSHOT_LOAD, SnapshotLoad
from wrennd.qemu_vmm.wire import Method, Request

T = TypeVar("T")
_NO_BODY = {
    Method.GET: "GET request cannot have a body.",
    Method.PUT: "Empty PUT request.",
    Method.PATCH: "Empty PATCH request.",
    Method.DELETE: "Empty Delete request.",
}


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """A call of Firecracker's that this VMM refuses: by name, but not before its phase."""

    prefix: Prefix
    feature: str
    when: When


Action = Call | Unsupported | object
Tokens = list[str]


@dataclass(frozen=True, kw_only=True)
class Route:
    """Answers (method, first path token). `parse` gets the other tokens and the body."""

    method: Method
    token: str
    parse: Callable[[Tokens, bytes], Action]
    # Some methods are told from others by a second token; without a match the path is unknown.
    second: str | None = None
    # A few calls do without the body that their method has.
    needs_no_body: bool = False

    def answers(self, method: Method, tokens: Tokens) -> bool:
        if self.method is not method or self.token != (tokens[0] if tokens else ""):
            return False
        return self.second is None or tokens[1:2] == [self.second]


def parse(request: Request) -> Action:
    """What `request` asks for. Errors: Fault."""
    tokens = request.path.lstrip("/").split("/")
    if tokens[-1] == "":
        tokens.pop()
    token = tokens[0] if tokens else ""
    has_body = request.body is not None
    wants_body = request.method in (Method.PUT, Method.PATCH)
    for route in ROUTES:
        is_taken = has_body == wants_body or (route.needs_no_body and not has_body)
        if is_taken and route.answers(request.method, tokens):
            return route.parse(tokens[1:], request.body or b"")
    if has_body != wants_body:
        raise Fault(_NO_BODY[request.method])
    raise _unknown(request.method, token)


def _unknown(method: Method, path: str) -> Fault:
    return Fault(f"Invalid request method and/or path: {method} {path}.")


def decode(kind: Kind[T], body: bytes) -> T:
    try:
        return schema.decode(kind, body)
    except JsonError as error:
        raise _wrong_body(str(error)) from None


def _wrong_body(problem: str) -> Fault:
    return Fault(f"An error occurred when deserializing the json body of a request: {problem}.")


def deprecation(action: Action) -> str:
    """What the request used that clients are to stop using; empty when there is nothing."""
    match action:
        case MachineUpdate() if action.cpu_template is not None:
            return "/machine-config: cpu_template field is deprecated."
        case mmds.MmdsConfig(version=mmds.Version.V1):
            return "PUT /mmds/config: V1 is deprecated. Use V2 instead."
        case SnapshotLoad() if action.is_deprecated:
            return (
                "PUT /snapshot/load: mem_file_path and enable_diff_snapshots fields are deprecated."
            )
    return ""


def _call(call: Call) -> Callable[[Tokens, bytes], Action]:
    return lambda tokens, body: call


def _resource(kind: Kind[object]) -> Callable[[Tokens, bytes], Action]:
    return lambda tokens, body: decode(kind, body)


def _refused(prefix: Prefix, feature: str, when: When) -> Callable[[Tokens, bytes], Action]:
    action = Unsupported(prefix=prefix, feature=feature, when=when)
    return lambda tokens, body: action


def _id(tokens: Tokens) -> str:
    if not tokens or not tokens[0]:
        raise Fault("The ID cannot be empty.")
    if not all(char.isalnum() or char == "_" for char in tokens[0]):
        raise Fault("API Resource IDs can only contain alphanumeric characters and underscores.")
    return tokens[0]


def _drive(tokens: Tokens, body: bytes) -> Action:
    wanted = _id(tokens)
    drive = decode(resources.DRIVE, body)
    return _same_drive(wanted, drive.drive_id, drive)


def _drive_patch(tokens: Tokens, body: bytes) -> Action:
    wanted = _id(tokens)
    patch = decode(resources.DRIVE_PATCH, body)
    return _same_drive(wanted, patch.drive_id, patch)


def _same_drive(wanted: str, found: str, action: Action) -> Action:
    if wanted != found:
        raise Fault("The id from the path does not match the id from the body!")
    return action


def _interface(tokens: Tokens, body: bytes) -> Action:
    wanted = _id(tokens)
    interface = decode(resources.NETWORK_INTERFACE, body)
    return _same_interface(wanted, interface.iface_id, interface)


def _interface_patch(tokens: Tokens, body: bytes) -> Action:
    wanted = _id(tokens)
    patch = decode(resources.NETWORK_INTERFACE_PATCH, body)
    return _same_interface(wanted, patch.iface_id, patch)


def _same_interface(wanted: str, found: str, action: Action) -> Action:
    if wanted != found:
        raise Fault(
            f"The id from the path [{wanted}] does not match the id from the body [{found}]!"
        )
    return action


def _machine_update(tokens: Tokens, body: bytes) -> Action:
    update = decode(resources.MACHINE_UPDATE, body)
    if update == MachineUpdate():
        raise Fault(_NO_BODY[Method.PATCH])
    return update


def _action(tokens: Tokens, body: bytes) -> Action:
    return {
        ActionType.INSTANCE_START: Call.START,
        ActionType.FLUSH_METRICS: Call.FLUSH_METRICS,
        ActionType.SEND_CTRL_ALT_DEL: Call.CTRL_ALT_DEL,
    }[decode(resources.ACTION, body)]


def _vm_state(tokens: Tokens, body: bytes) -> Action:
    state = decode(resources.VM_STATE, body)
    return Call.PAUSE if state is WantedState.PAUSED else Call.RESUME


def _snapshot(tokens: Tokens, body: bytes) -> Action:
    match tokens[:1]:
        case ["create"]:
            return decode(SNAPSHOT_CREATE, body)
        case ["load"]:
            wanted = decode(SNAPSHOT_LOAD, body)
            if wanted.problem:
                raise _wrong_body(wanted.problem)
            return wanted
        case []:
            raise Fault("Missing snapshot operation type.")
        case _:
            raise _unknown(Method.PUT, f"/snapshot/{tokens[0]}")


def _mmds(tokens: Tokens, body: bytes) -> Action:
    match tokens[:1]:
        case []:
            return decode(mmds.read_put, body)
        case ["config"]:
            return decode(mmds.MMDS_CONFIG, body)
        case _:
            raise _unrecognized(Method.PUT, tokens[0])


def _unrecognized(method: Method, path: str) -> Fault:
    return Fault(f"Unrecognized {method} request path `{path}`.")


def _balloon(tokens: Tokens, body: bytes) -> Action:
    match tokens:
        case []:
            return Call.BALLOON
        case ["statistics", *_]:
            return Call.BALLOON_STATISTICS
        case ["hinting", "status", *_]:
            return Call.BALLOON_HINTING
        case ["hinting", *rest]:
            raise _unrecognized(Method.GET, f"/hinting/{''.join(rest[:1])}")
    raise _unrecognized(Method.GET, tokens[0])


def _balloon_patch(tokens: Tokens, body: bytes) -> Action:
    match tokens:
        case ["hinting", "start", *_]:
            if body:
                decode(balloon.START_HINTING, body)
            return Call.BALLOON_HINTING
        case ["hinting", "stop", *_]:
            return Call.BALLOON_HINTING
        case ["hinting", *rest]:
            raise _unrecognized(Method.PATCH, f"/hinting/{''.join(rest[:1])}")
    if not body:
        raise Fault(_NO_BODY[Method.PATCH])
    if tokens[:1] == ["statistics"]:
        return decode(balloon.BALLOON_STATS_UPDATE, body)
    return decode(balloon.BALLOON_UPDATE, body)


def _unplug(tokens: Tokens, body: bytes) -> Action:
    _id(tokens)
    return Unsupported(prefix=Prefix.INTERNAL, feature="hot-unplug", when=When.AFTER_WITH_PCI)


ROUTES = (
    Route(method=Method.GET, token="", parse=_call(Call.INSTANCE_INFO)),
    Route(method=Method.GET, token="version", parse=_call(Call.VERSION)),
    Route(method=Method.GET, token="vm", second="config", parse=_call(Call.FULL_CONFIG)),
    Route(method=Method.GET, token="machine-config", parse=_call(Call.MACHINE_CONFIG)),
    Route(method=Method.PUT, token="actions", parse=_action),
    Route(method=Method.PUT, token="boot-source", parse=_resource(resources.BOOT_SOURCE)),
    Route(method=Method.PUT, token="machine-config", parse=_resource(resources.MACHINE_CONFIG)),
    Route(method=Method.PATCH, token="machine-config", parse=_machine_update),
    Route(method=Method.PUT, token="drives", parse=_drive),
    Route(method=Method.PATCH, token="drives", parse=_drive_patch),
    Route(method=Method.DELETE, token="drives", parse=_unplug),
    Route(method=Method.PUT, token="network-interfaces", parse=_interface),
    Route(method=Method.PATCH, token="network-interfaces", parse=_interface_patch),
    Route(method=Method.DELETE, token="network-interfaces", parse=_unplug),
    Route(method=Method.PUT, token="entropy", parse=_resource(resources.ENTROPY)),
    Route(method=Method.PUT, token="logger", parse=_resource(resources.LOGGER)),
    Route(method=Method.PUT, token="metrics", parse=_resource(resources.METRICS)),
    Route(method=Method.PUT, token="serial", parse=_resource(resources.SERIAL)),
    Route(method=Method.PATCH, token="vm", parse=_vm_state),
    Route(method=Method.PUT, token="snapshot", parse=_snapshot),
    Route(method=Method.GET, token="balloon", parse=_balloon),
    Route(method=Method.PUT, token="balloon", parse=_resource(balloon.BALLOON)),
    Route(method=Method.PATCH, token="balloon", parse=_balloon_patch, needs_no_body=True),
    Route(method=Method.GET, token="mmds", parse=_call(Call.MMDS)),
    Route(method=Method.PUT, token="mmds", parse=_mmds),
    Route(method=Method.PATCH, token="mmds", parse=_resource(mmds.read_patch)),
    # What this VMM can't do
    Route(
        method=Method.PUT,
        token="cpu-config",
        parse=_refused(Prefix.CPU_CONFIG, "cpu-config", When.BEFORE),
    ),
    Route(method=Method.PUT, token="vsock", parse=_refused(Prefix.VSOCK, "vsock", When.BEFORE)),
    Route(method=Method.PUT, token="pmem", parse=_refused(Prefix.PMEM, "pmem", When.BEFORE_OR_PCI)),
    Route(method=Method.PATCH, token="pmem", parse=_refused(Prefix.PMEM, "pmem", When.AFTER)),
    Route(method=Method.DELETE, token="pmem", parse=_unplug),
    Route(
        method=Method.GET,
        token="hotplug",
        second="memory",
        parse=_refused(Prefix.HOTPLUG_CONFIG, "memory hotplug", When.AFTER),
    ),
    Route(
        method=Method.PUT,
        token="hotplug",
        second="memory",
        parse=_refused(Prefix.HOTPLUG_CONFIG, "memory hotplug", When.BEFORE),
    ),
    Route(
        method=Method.PATCH,
        token="hotplug",
        second="memory",
        parse=_refused(Prefix.HOTPLUG_UPDATE, "memory hotplug", When.AFTER),
    ),
)
