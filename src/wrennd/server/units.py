"""The server as a systemd service: the unit's text, put in place and taken away again.

Its VMMs and pagers are in cgroups of their own (`wrenn-<installation>`), beside all of systemd's,
so ending or restarting the service leaves them alone. There is one such service on a machine, of
one data directory.
"""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from wrennd.core.config import DEFAULT_DATA_DIR
from wrennd.core.errors import AlreadyExists, Error, HostUnsuitable
from wrennd.linux import files, process
from wrennd.linux.process import CommandFailed

NAME = "wrenn.service"
DIRECTORY = Path("/etc/systemd/system")
# There when systemd is what runs the machine (sd_booted(3)).
IS_BOOTED = Path("/run/systemd/system")
TOOL_TIMEOUT_S = 360  # a stop waits for operations that are under way, a start until it is ready
DATA_DIR = "WRENN_DATA_DIR"

# KillMode: its parts end with it; what else may be in its cgroup is a sandbox's, where there is no
# cgroup2. StartLimitIntervalSec: parts of a server that was killed may take longer to end than
# five starts, after which systemd would give up. TimeoutStartSec: longer than `serve.READY_S`.
UNIT = """\
[Unit]
Description=Wrenn: microVM sandboxes
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command}
{environment}
Restart=on-failure
RestartSec=2
KillMode=process
TimeoutStartSec=150
TimeoutStopSec=180
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
"""


def text(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """The unit. To systemd a `%` means something everywhere, a `$` in commands (systemd.exec(5),
    systemd.service(5)), unless it is doubled."""
    lines = [_assignment(name, value) for name, value in environment.items()]
    words = [shlex.quote(word).replace("%", "%%").replace("$", "$$") for word in command]
    return UNIT.format(command=" ".join(words), environment="\n".join(lines))


def _assignment(name: str, value: str) -> str:
    said = f"{name}={value}".replace("\\", r"\\").replace('"', r"\"").replace("%", "%%")
    return f'Environment="{said}"'


def data_dir_of(unit: str) -> Path:
    """The data directory that a unit's text names; the default one if it names none."""
    for line in unit.splitlines():
        begin, found, rest = line.partition(f'Environment="{DATA_DIR}=')
        if found and not begin:
            # What `_assignment` has doubled is one again.
            return Path(re.sub(r'\\([\\"])|%(%)', r"\1\2", rest.removesuffix('"')))
    return DEFAULT_DATA_DIR


def owner() -> Path | None:
    """The data directory whose service is installed, if there is one."""
    unit = DIRECTORY / NAME
    return data_dir_of(unit.read_text()) if unit.exists() else None


def main_pid() -> int:
    """Of the service; 0 when it does not run, or there is none. Errors: OSError."""
    if not IS_BOOTED.exists():
        return 0
    return int(_systemctl("show", "--property=MainPID", "--value", NAME).strip() or 0)


def install(data_dir: Path, options: Sequence[str], environment: Mapping[str, str]) -> Path:
    """Write, enable and start the service, and wait until it is ready; what it was before is
    replaced.

    Errors: HostUnsuitable without systemd; AlreadyExists when it is another data directory's;
    Error when it does not get ready; OSError.
    """
    if not IS_BOOTED.exists():
        raise HostUnsuitable(
            "this machine is not run by systemd", hint="run wrenn up by what runs its services"
        )
    unit = DIRECTORY / NAME
    other = owner()
    if other not in (None, data_dir):
        raise AlreadyExists(
            f"{unit} is the service of {other}",
            hint=f"there is one service on a machine: wrenn uninstall --data-dir {other}",
        )
    command = (os.path.abspath(sys.argv[0]), "up", *options)  # noqa: PTH100 - a symlink stays one
    kept = {**environment, DATA_DIR: os.fspath(data_dir)}
    files.write_atomic(unit, text(command, kept).encode(), mode=0o644)
    _systemctl("daemon-reload")
    _systemctl("enable", NAME)
    try:
        _systemctl("restart", NAME)
    except CommandFailed as error:
        raise Error(
            f"{NAME} is installed, but did not start", hint=f"journalctl -u {NAME} -n 30 says why"
        ) from error
    return unit


def uninstall(data_dir: Path) -> bool:
    """Stop and remove the service; False when there is none of this data directory.

    Errors: OSError.
    """
    if owner() != data_dir:
        return False
    if IS_BOOTED.exists():
        _systemctl("disable", "--now", NAME)
    (DIRECTORY / NAME).unlink()
    if IS_BOOTED.exists():
        _systemctl("daemon-reload")
    return True


def _systemctl(*words: str) -> str:
    return process.run(("systemctl", *words), timeout_s=TOOL_TIMEOUT_S).stdout
