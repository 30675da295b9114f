"""The command line: Firecracker's options, and three of ours. Pure.

Options that only make sense for Firecracker's own isolation and accounting are taken and ignored,
so that what starts Firecracker can start this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from wrennd.qemu_vmm.machine import Accel
from wrennd.qemu_vmm.resources import LEVELS, Logger
from wrennd.qemu_vmm.wire import DEFAULT_MAX_BODY

DEFAULT_SOCKET = "/run/firecracker.socket"
DEFAULT_ID = "anonymous-instance"
DEFAULT_QEMU = "/usr/bin/qemu-system-x86_64"
MAX_ID = 64
# How the pages of a Diff are found: as exactly as the kernel can, or as on a kernel that can't.
DIRTY_PAGES = ("exact", "populated")


class ExitCode(IntEnum):
    """Firecracker's."""

    OK = 0
    ERROR = 1
    BAD_CONFIGURATION = 152
    BAD_ARGUMENTS = 153


class Stop(Exception):
    """This program can't go on: one sentence, and the exit code that says so."""

    def __init__(self, code: ExitCode, text: str) -> None:
        self.code = code
        super().__init__(text)


# Option to whether it takes a value.
_OPTIONS = {
    "accel": True,
    "api-sock": True,
    "boot-timer": False,
    "config-file": True,
    "dirty-pages": True,
    "help": False,
    "http-api-max-payload-size": True,
    "id": True,
    "level": True,
    "log-path": True,
    "metadata": True,
    "metrics-path": True,
    "mmds-size-limit": True,
    "module": True,
    "no-api": False,
    "no-seccomp": False,
    "parent-cpu-time-us": True,
    "qemu": True,
    "seccomp-filter": True,
    "show-level": False,
    "show-log-origin": False,
    "start-time-cpu-us": True,
    "start-time-us": True,
    "version": False,
}
_NUMBERS = (
    "http-api-max-payload-size",
    "mmds-size-limit",
    "parent-cpu-time-us",
    "start-time-cpu-us",
    "start-time-us",
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for. `api_socket` None: no API."""

    api_socket: str | None
    id: str
    accel: Accel
    qemu: Path
    is_tracking_exact: bool
    config_file: Path | None
    logger: Logger
    metrics_path: str | None
    max_body: int
    max_mmds: int
    metadata: Path | None
    wants_help: bool
    wants_version: bool


def parse(arguments: Sequence[str]) -> Options:
    """Errors: Stop, with BAD_ARGUMENTS, or BAD_CONFIGURATION for an unknown log level."""
    if "--help" in arguments or "-h" in arguments:
        arguments = ["--help"]
    elif "--version" in arguments:
        arguments = ["--version"]
    given = _collect(arguments)
    _check(given)
    level = given.get("level")
    if level is not None and level.lower() not in LEVELS:
        raise Stop(
            ExitCode.BAD_CONFIGURATION,
            f"Invalid value for logger level: {level}.Possible values: "
            "[Error, Warning, Info, Debug]",
        )
    config_file, metadata = given.get("config-file"), given.get("metadata")
    max_body = int(given.get("http-api-max-payload-size", DEFAULT_MAX_BODY))
    return Options(
        api_socket=None if "no-api" in given else given.get("api-sock", DEFAULT_SOCKET),
        id=given.get("id", DEFAULT_ID),
        accel=Accel(given.get("accel", "tcg")),
        qemu=Path(given.get("qemu", DEFAULT_QEMU)),
        is_tracking_exact=given.get("dirty-pages") != "populated",
        config_file=None if config_file is None else Path(config_file),
        logger=Logger(
            log_path=given.get("log-path"),
            level=level,
            show_level="show-level" in given or None,
            show_log_origin="show-log-origin" in given or None,
            module=given.get("module"),
        ),
        metrics_path=given.get("metrics-path"),
        max_body=max_body,
        max_mmds=int(given.get("mmds-size-limit", max_body)),
        metadata=None if metadata is None else Path(metadata),
        wants_help="help" in given,
        wants_version="version" in given,
    )


def _bad(text: str) -> Stop:
    return Stop(ExitCode.BAD_ARGUMENTS, f"Arguments parsing error: {text}")


def _collect(arguments: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        name = argument.removeprefix("--")
        if name == argument or name not in _OPTIONS:
            raise _bad(
                f"Found argument '{name}' which wasn't expected, or isn't valid in this context."
            )
        if name in given:
            raise _bad(f"The argument '{name}' was provided more than once.")
        value = next(rest, None) if _OPTIONS[name] else ""
        if value is None or (_OPTIONS[name] and value.startswith("--")):
            raise _bad(f"The argument '{name}' requires a value, but none was supplied.")
        given[name] = value
    return given


def _check(given: dict[str, str]) -> None:
    if "no-api" in given and "config-file" not in given:
        raise _bad("Argument 'config-file' required, but not found.")
    if "no-seccomp" in given and "seccomp-filter" in given:
        raise _bad("Argument 'seccomp-filter' cannot be used together with argument 'no-seccomp'.")
    instance_id = given.get("id", DEFAULT_ID)
    if not 1 <= len(instance_id) <= MAX_ID:
        raise _bad(
            f"Invalid instance ID: Invalid len ({len(instance_id)});  the length must be between "
            f"1 and {MAX_ID}"
        )
    for position, char in enumerate(instance_id):
        if not (char.isascii() and char.isalnum()) and char != "-":
            raise _bad(f"Invalid instance ID: Invalid char ({char}) at position {position}")
    if given.get("accel", "tcg") not in list(Accel):
        raise _bad(f"'accel' is {given['accel']!r}, expected one of: {', '.join(Accel)}")
    if given.get("dirty-pages", "exact") not in DIRTY_PAGES:
        choices = ", ".join(DIRTY_PAGES)
        raise _bad(f"'dirty-pages' is {given['dirty-pages']!r}, expected one of: {choices}")
    for name in _NUMBERS:
        if not given.get(name, "0").isascii() or not given.get(name, "0").isdigit():
            raise _bad(f"'{name}' parameter expected to be of 'usize' type.")


def help_text() -> str:
    lines = ["Options:"]
    for name, takes_value in sorted(_OPTIONS.items()):
        lines.append(f"  --{name}" + (" <value>" if takes_value else ""))
    return "\n".join(lines)
