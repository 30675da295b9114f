"""Settings: one frozen object, read once from the environment, passed on as an argument.

This is the only module that reads the environment. Flags of a command override what is here
(`dataclasses.replace`).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wrennd.core.errors import InvalidInput

DEFAULT_DATA_DIR = Path("/var/lib/wrenn")
VMM_CHOICES = ("auto", "firecracker", "qemu-kvm", "qemu-emulated")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a program of ours may be told.

    data_dir: everything that must outlive a reboot (WRENN_DATA_DIR).
    vmm: which VMM to use; `auto` probes (WRENN_VMM).
    overlay: which disk driver; `auto` probes (WRENN_OVERLAY).
    network_pool: the IPv4 range that sandboxes get host-side addresses from
        (WRENN_NETWORK_POOL); `network.addressing.parse_pool` judges it, "" is its default.
    log_level, log_form: WRENN_LOG_LEVEL, WRENN_LOG_FORM (console or json).
    """

    data_dir: Path = DEFAULT_DATA_DIR
    vmm: str = "auto"
    overlay: str = "auto"
    network_pool: str = ""
    log_level: str = "warning"
    log_form: str = "console"

    def __post_init__(self) -> None:
        if not self.data_dir.is_absolute():
            raise InvalidInput(
                f"the data directory {str(self.data_dir)!r} is not an absolute path",
                hint="give --data-dir or WRENN_DATA_DIR a path that begins with /",
            )
        _choice("WRENN_VMM", self.vmm, VMM_CHOICES)
        _choice("WRENN_OVERLAY", self.overlay, ("auto", "dm", "reflink", "copy"))
        _choice("WRENN_LOG_LEVEL", self.log_level, ("debug", "info", "warning", "error"))
        _choice("WRENN_LOG_FORM", self.log_form, ("console", "json"))

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str] | None = None, *, log_level: str = "warning"
    ) -> Self:
        """log_level: what is said unless WRENN_LOG_LEVEL says otherwise."""
        env = os.environ if environ is None else environ
        return cls(
            data_dir=Path(env.get("WRENN_DATA_DIR") or DEFAULT_DATA_DIR),
            vmm=env.get("WRENN_VMM") or "auto",
            overlay=env.get("WRENN_OVERLAY") or "auto",
            network_pool=env.get("WRENN_NETWORK_POOL") or "",
            log_level=(env.get("WRENN_LOG_LEVEL") or log_level).lower(),
            log_form=(env.get("WRENN_LOG_FORM") or "console").lower(),
        )


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidInput(f"{name} is {value!r}", hint=f"choose one of {', '.join(choices)}")


def terminal_type() -> str:
    """What kind of terminal we are in, for a command that gets one of its own."""
    return os.environ.get("TERM") or "xterm-256color"


def host_environment() -> dict[str, str]:
    """The environment that package tools (apt, mmdebstrap) need: proxies and CA settings pass."""
    return dict(os.environ)
