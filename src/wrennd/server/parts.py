"""The two programs of a server, and how each is started: argument lists, environment, rights."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wrennd.core.config import Config, host_environment
from wrennd.linux import process, service
from wrennd.linux.process import Process
from wrennd.server.account import Account
from wrennd.server.settings import RunFiles, Settings

# An operation that has begun is brought to its end: a pause of much memory takes its time.
AGENT_STOP_S = 120.0
SLACK_S = 10.0
CONTROL_STOP_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Part:
    """One program. stop_s: how long it may take to end after SIGTERM.

    account: whom it runs as; None: as we do.
    """

    name: str
    module: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    stop_s: float
    account: Account | None = None

    def spawn(self) -> Process:
        """Its output is ours. It gets SIGTERM when we die."""
        program = [sys.executable, "-P", "-m", self.module, *self.args]
        hide, show = service.way(needed_paths()) if self.account else ([], [])
        description = service.Description(
            argv=program,
            env=self.env,
            cwd=os.fspath(self.cwd),
            parent=os.getpid(),
            uid=self.account.uid if self.account else None,
            gid=self.account.gid if self.account else None,
            hide=hide,
            show=show,
        )
        wrapper = service.argv(os.path.realpath(sys.executable), description)
        return process.spawn(wrapper, stdout=1, stderr=2)


def needed_paths() -> list[Path]:
    """What a part reads to run at all: the interpreter, what is installed beside it, ourselves."""
    found = (Path(sys.prefix), Path(sys.base_prefix), service.package_parent())
    return [path.resolve() for path in dict.fromkeys(found)]


def agent(config: Config, run: RunFiles, user: Account) -> Part:
    """Root, as it makes sandboxes; package tools that it may start need our whole environment."""
    return Part(
        name="host agent",
        module="wrennd.host.agent",
        args=(
            *("--data-dir", os.fspath(config.data_dir)),
            *("--socket", os.fspath(run.agent_socket)),
            *("--allow-uid", str(user.uid)),
            *("--stop-timeout", str(AGENT_STOP_S)),
        ),
        env=host_environment() | _logging(config),
        cwd=Path("/"),
        stop_s=AGENT_STOP_S + SLACK_S,
    )


def control(config: Config, settings: Settings, run: RunFiles, account: Account) -> Part:
    """The control plane, as a user without rights."""
    return Part(
        name="control plane",
        module="wrennd.control",
        args=(
            *("--database", settings.database),
            *("--agent", os.fspath(run.agent_socket)),
            *("--listen", str(settings.listen)),
            *("--key-file", os.fspath(settings.key_file)),
            *("--domain", settings.domain),
            *(("--insecure-http",) if settings.is_insecure else ()),
        ),
        env=process.CLEAN_ENVIRONMENT | {"HOME": os.fspath(settings.state_dir)} | _logging(config),
        cwd=settings.state_dir,
        stop_s=CONTROL_STOP_S,
        account=account,
    )


def _logging(config: Config) -> dict[str, str]:
    return {"WRENN_LOG_LEVEL": config.log_level, "WRENN_LOG_FORM": config.log_form}
