"""Commands inside sandboxes: what is asked for as values, and one that runs to its end."""

import base64
from dataclasses import dataclass, field
from typing import Literal

from protobuf import Oneof

from wrennd.core.errors import InvalidInput, NotFound
from wrennd.core.model import Command
from wrennd.gen.hostagent import hostagent_pb as pb

DEFAULT_TIMEOUT_S = 30
MAX_TIMEOUT_S = 24 * 3600
# What the host needs beyond a command's own time, to start it and to kill it.
SLACK_S = 30
DEFAULT_USER = "root"
MAX_TAG = 64


@dataclass(frozen=True, kw_only=True)
class Run:
    """A command as a request names it. cwd empty: the user's home directory."""

    cmd: str
    args: tuple[str, ...] = ()
    envs: dict[str, str] = field(default_factory=dict)
    cwd: str = ""
    user: str = DEFAULT_USER

    def __post_init__(self) -> None:
        """Errors: InvalidInput."""
        Command(argv=(self.cmd, *self.args), env=self.envs, cwd=self.cwd, user=self.user)

    def to_spec(self) -> pb.CommandSpec:
        return pb.CommandSpec(
            cmd=self.cmd,
            args=list(self.args),
            envs=self.envs,
            cwd=self.cwd,
            user=self.user,
        )


def selector(text: str) -> pb.Selector:
    """A process by its number, or by its tag. Errors: InvalidInput, NotFound."""
    if text.isascii() and text.isdigit():
        pid = int(text)
        if not 0 < pid < 1 << 31:
            raise NotFound(f"there is no process {text[:MAX_TAG]}")
        by_pid: Oneof[Literal["pid"], int] = Oneof("pid", pid)
        return pb.Selector(selector=by_pid)
    by_tag: Oneof[Literal["tag"], str] = Oneof("tag", check_tag(text))
    return pb.Selector(selector=by_tag)


def check_tag(text: str) -> str:
    """Errors: InvalidInput."""
    if not 0 < len(text) <= MAX_TAG or not text.isprintable() or not text.isascii():
        raise InvalidInput(
            f"{text[:MAX_TAG]!r} is no tag", hint=f"use 1 to {MAX_TAG} printable ASCII characters"
        )
    return text


def encoded(stdout: bytes, stderr: bytes) -> tuple[str, str, str]:
    """Both as text and how: "utf-8", or "base64" when one of them is not."""
    try:
        return stdout.decode(), stderr.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(stdout).decode(), base64.b64encode(stderr).decode(), "base64"
