"""Settings: one frozen object, read once from the environment, passed on as an argument.

This is the only module that reads the environment. Flags of a command override what is here
(`dataclasses.replace`).
"""

import os
import tomllib
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


DEFAULT_BASE_URL = "http://127.0.0.1:7070"


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """Which server a client talks to, and with which key.

    base_url, api_key: WRENN_BASE_URL and WRENN_API_KEY, else what `config.toml` in
    ~/.config/wrenn (or $XDG_CONFIG_HOME/wrenn) says. "": nobody said.
    """

    base_url: str = ""
    api_key: str = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Errors: InvalidInput when the file is not TOML, or says what we don't know."""
        env = os.environ if environ is None else environ
        said = _config_file(env)
        return cls(
            base_url=(env.get("WRENN_BASE_URL") or said.get("base_url", "")).rstrip("/"),
            api_key=env.get("WRENN_API_KEY") or said.get("api_key", ""),
        )


def _config_file(env: Mapping[str, str]) -> dict[str, str]:
    directory = env.get("XDG_CONFIG_HOME") or (f"{env['HOME']}/.config" if "HOME" in env else "")
    path = Path(directory) / "wrenn" / "config.toml"
    if not directory:
        return {}
    try:
        said = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} can't be read: {error}") from error
    for name, value in said.items():
        if name not in ("base_url", "api_key") or not isinstance(value, str):
            raise InvalidInput(
                f"{path} says {name!r}, which means nothing there",
                hint='it may have base_url = "..." and api_key = "..."',
            )
    return said


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidInput(f"{name} is {value!r}", hint=f"choose one of {', '.join(choices)}")


def terminal_type() -> str:
    """What kind of terminal we are in, for a command that gets one of its own."""
    return os.environ.get("TERM") or "xterm-256color"


def host_environment() -> dict[str, str]:
    """The environment that package tools (apt, mmdebstrap) need: proxies and CA settings pass."""
    return {name: value for name, value in os.environ.items() if name != _NOTIFY_SOCKET}


def service_manager() -> str:
    """Where the manager that runs us as a service wants to hear of us (sd_notify(3)), else ""."""
    return os.environ.get(_NOTIFY_SOCKET, "")


# Ours alone to answer: what we start must not speak for us.
_NOTIFY_SOCKET = "NOTIFY_SOCKET"
