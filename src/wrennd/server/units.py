"""The server as a systemd service: the unit's text, put in place and taken away again.

Its VMMs and pagers are in cgroups of their own (`wrenn-<installation>`), beside all of systemd's,
so ending or restarting the service leaves them alone.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from wrennd.core.errors import HostUnsuitable
from wrennd.linux import files, process

NAME = "wrenn.service"
DIRECTORY = Path("/etc/systemd/system")
# There when systemd is what runs the machine (sd_booted(3)).
IS_BOOTED = Path("/run/systemd/system")
TOOL_TIMEOUT_S = 240  # a stop waits for operations that are under way

UNIT = """\
[Unit]
Description=Wrenn: microVM sandboxes
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
ExecStart={command}
{environment}
Restart=on-failure
RestartSec=2
# Its parts end with it; what else may be in its cgroup is a sandbox's, where there is no cgroup2.
KillMode=process
TimeoutStopSec=180
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
"""


def text(command: Sequence[str], environment: dict[str, str]) -> str:
    """The unit. To systemd a `%` means something everywhere, a `$` in commands (systemd.exec(5),
    systemd.service(5)), unless it is doubled."""
    lines = [f'Environment="{_value(f"{name}={value}")}"' for name, value in environment.items()]
    words = [shlex.quote(word).replace("%", "%%").replace("$", "$$") for word in command]
    return UNIT.format(command=" ".join(words), environment="\n".join(lines))


def _value(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("%", "%%")


def install(options: Sequence[str], environment: dict[str, str]) -> Path:
    """Write, enable and start the service; what it was before is replaced.

    Errors: HostUnsuitable without systemd; OSError.
    """
    if not IS_BOOTED.exists():
        raise HostUnsuitable(
            "this machine is not run by systemd", hint="run wrenn up by what runs its services"
        )
    unit = DIRECTORY / NAME
    command = (os.path.abspath(sys.argv[0]), "up", *options)  # noqa: PTH100 - a symlink stays one
    files.write_atomic(unit, text(command, environment).encode(), mode=0o644)
    _systemctl("daemon-reload")
    _systemctl("enable", NAME)
    _systemctl("restart", NAME)
    return unit


def uninstall() -> bool:
    """Stop and remove the service; False when there is none. Errors: OSError."""
    unit = DIRECTORY / NAME
    if not unit.exists():
        return False
    if IS_BOOTED.exists():
        _systemctl("disable", "--now", NAME)
    unit.unlink()
    if IS_BOOTED.exists():
        _systemctl("daemon-reload")
    return True


def _systemctl(*words: str) -> None:
    process.run(("systemctl", *words), timeout_s=TOOL_TIMEOUT_S)
