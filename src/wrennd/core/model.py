"""What a user asks for: values that can't be invalid."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from wrennd.core.errors import InvalidInput
from wrennd.core.expiry import NEVER, Expiry
from wrennd.core.ids import check_name, check_sandbox_id

MAX_VCPUS = 32  # Firecracker's bound (machine-config)
# Below this the kernel, its initrd and the guest agent don't fit: measured, see docs/vmm.md.
MIN_MEM_MIB = 128
MAX_MEM_MIB = 1 << 20
MAX_DISK_MIB = 1 << 20
DEFAULT_VCPUS, DEFAULT_MEM_MIB = 1, 512
MAX_CHILDREN = 20  # of one fork
MAX_TERMINAL = 0xFFFF  # struct winsize
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class SandboxSpec:
    """A sandbox as it is asked for. `dns` empty means: as the host resolves.

    env: variables that every command in it gets. disk_mib: 0 for a disk as long as
    that of what it is made of.
    """

    id: str
    image: str = "base"
    vcpus: int = DEFAULT_VCPUS
    mem_mib: int = DEFAULT_MEM_MIB
    dns: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    disk_mib: int = 0
    expiry: Expiry = NEVER

    def __post_init__(self) -> None:
        check_sandbox_id(self.id)
        check_name(self.image, "template")
        if not 1 <= self.vcpus <= MAX_VCPUS:
            raise InvalidInput(
                f"{self.vcpus} vCPUs can't be given to a sandbox",
                hint=f"choose between 1 and {MAX_VCPUS}",
            )
        if not MIN_MEM_MIB <= self.mem_mib <= MAX_MEM_MIB:
            raise InvalidInput(
                f"{self.mem_mib} MiB of memory can't be given to a sandbox",
                hint=f"choose at least {MIN_MEM_MIB} MiB",
            )
        if not 0 <= self.disk_mib <= MAX_DISK_MIB:
            raise InvalidInput(
                f"{self.disk_mib} MiB can't be the length of a disk",
                hint=f"choose at most {MAX_DISK_MIB} MiB, and no less than the template has",
            )
        check_environment(self.env)


@dataclass(frozen=True, kw_only=True)
class SandboxRequest:
    """What a user asks for. None means: as the template has it, or a base image's default.

    is_cold: boot it, also where a frozen guest could be restored instead.
    """

    id: str
    template: str = "base"
    vcpus: int | None = None
    mem_mib: int | None = None
    dns: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None
    disk_mib: int | None = None
    expiry: Expiry = NEVER
    is_cold: bool = False

    def __post_init__(self) -> None:
        self.to_spec()

    def to_spec(self, *, vcpus: int = DEFAULT_VCPUS, mem_mib: int = DEFAULT_MEM_MIB) -> SandboxSpec:
        """With what was not asked for filled in."""
        return SandboxSpec(
            id=self.id,
            image=self.template,
            vcpus=vcpus if self.vcpus is None else self.vcpus,
            mem_mib=mem_mib if self.mem_mib is None else self.mem_mib,
            dns=self.dns,
            env=self.env or {},
            disk_mib=self.disk_mib or 0,
            expiry=self.expiry,
        )


@dataclass(frozen=True, kw_only=True)
class TerminalSize:
    """A terminal's size in characters."""

    cols: int
    rows: int

    def __post_init__(self) -> None:
        if not (0 < self.cols <= MAX_TERMINAL and 0 < self.rows <= MAX_TERMINAL):
            raise InvalidInput(f"a terminal can't have {self.cols} columns and {self.rows} rows")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command to run in a sandbox. `cwd` empty means: the user's home directory.

    terminal: give it a terminal of that size instead of pipes; its output then is one stream.
    """

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    cwd: str = ""
    user: str = "user"
    has_stdin: bool = False
    terminal: TerminalSize | None = None

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise InvalidInput("no command was given", hint="put it behind --, as in -- echo hello")
        for text in (*self.argv, self.cwd, self.user):
            _check_text(text)
        check_environment(self.env)


def check_children(count: int) -> int:
    """Errors: InvalidInput."""
    if not 1 <= count <= MAX_CHILDREN:
        raise InvalidInput(
            f"a fork can't have {count} children",
            hint=f"choose between 1 and {MAX_CHILDREN}; fork again for more",
        )
    return count


def check_environment(env: Mapping[str, str]) -> None:
    """Errors: InvalidInput."""
    for name, value in env.items():
        _check_text(value)
        if not ENV_NAME.fullmatch(name):
            raise InvalidInput(
                f"{name!r} is not the name of an environment variable",
                hint="use letters, digits and '_', not beginning with a digit",
            )


def _check_text(text: str) -> None:
    """What goes to the guest as JSON and becomes an argument there: UTF-8 without NUL."""
    if "\0" in text:
        raise InvalidInput("a NUL byte can't be part of a command")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(
            f"{text!r} is not UTF-8",
            hint="pass such bytes by stdin (-i) or in a file (--copy)",
        ) from None
