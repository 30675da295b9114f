"""Every call of the server's API: what is sent, and what the answer is read as. Pure.

One function a route. `blocking.Client` and `awaiting.AsyncClient` have one method for each, with
the same arguments.
"""

import json
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from wrennd.client.decoding import decode, unexpected
from wrennd.client.values import (
    Console,
    Event,
    ExecResult,
    Expiry,
    FileEntry,
    Fork,
    Host,
    Key,
    Operation,
    Page,
    Point,
    Process,
    Sandbox,
    Snapshot,
    Started,
    Template,
)
from wrennd.core.errors import Error
from wrennd.core.space import Pruning, Space

T = TypeVar("T")
# The server bounds an operation and then answers with the state that it is in (docs/api.md).
ANSWER_S = 75.0
# How much longer than a command's own limit its answer may take.
EXEC_SLACK_S = 45.0
# A prune may have a few hundred thousand files to remove.
PRUNE_S = 320.0
# What a flow may want to act on.
FAILURES = (Error,)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back from a call that succeeded."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Errors: Error."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise unexpected("is not JSON") from error

    def member(self, name: str) -> Any:
        """Errors: Error."""
        found = self.json()
        if not isinstance(found, dict) or name not in found:
            raise unexpected(f"has no {name!r}")
        return found[name]


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request. read: what becomes of the answer. timeout_s: until the answer begins, and
    between its pieces."""

    method: str
    path: str
    read: Callable[[Answer], T]
    query: Mapping[str, str | int] = field(default_factory=dict)
    body: Any = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = ANSWER_S


def create(  # noqa: PLR0913 - one for each field of the request
    template: str = "base",
    *,
    vcpus: int | None = None,
    memory_mib: int | None = None,
    disk_mib: int | None = None,
    env: Mapping[str, str] | None = None,
    dns: Sequence[str] = (),
    expiry: Expiry | None = None,
    metadata: Mapping[str, str] | None = None,
    cold: bool = False,
    idempotency_key: str = "",
) -> Call[Sandbox]:
    """A new sandbox; it may still be starting when the answer comes (see `flows.create`)."""
    return Call(
        method="POST",
        path="/v1/sandboxes",
        body=_without_none(
            template=template,
            vcpus=vcpus,
            memory_mib=memory_mib,
            disk_mib=disk_mib,
            env=None if env is None else dict(env),
            dns=list(dns) or None,
            expiry=_expiry(expiry),
            metadata=None if metadata is None else dict(metadata),
            cold=cold or None,
        ),
        headers={"Idempotency-Key": idempotency_key} if idempotency_key else {},
        read=_one(Sandbox),
    )


def get(sandbox_id: str) -> Call[Sandbox]:
    return Call(method="GET", path=_sandbox(sandbox_id), read=_one(Sandbox))


def page(
    *,
    state: Sequence[str] = (),
    template: str = "",
    metadata: Mapping[str, str] | None = None,
    limit: int = 0,
    cursor: str = "",
) -> Call[Page]:
    """A part of the list, newest first; without states none that is stopped."""
    query: dict[str, str | int] = {
        "state": ",".join(state),
        "template": template,
        "limit": limit,
        "cursor": cursor,
        **{f"metadata.{name}": value for name, value in (metadata or {}).items()},
    }
    return Call(
        method="GET",
        path="/v1/sandboxes",
        query={name: value for name, value in query.items() if value},
        read=_one(Page),
    )


def pause(sandbox_id: str) -> Call[Sandbox]:
    return Call(method="POST", path=_sandbox(sandbox_id, "pause"), read=_one(Sandbox))


def resume(
    sandbox_id: str,
    *,
    cold: bool = False,
    discard: bool = False,
    expiry: Expiry | None = None,
) -> Call[Sandbox]:
    """cold: boot it from its disk. discard: also one in error, whose work since its last snapshot
    is lost."""
    return Call(
        method="POST",
        path=_sandbox(sandbox_id, "resume"),
        body=_without_none(cold=cold, discard=discard, expiry=_expiry(expiry)),
        read=_one(Sandbox),
    )


def fork(
    sandbox_id: str,
    count: int = 1,
    *,
    expiry: Expiry | None = None,
    metadata: Mapping[str, str] | None = None,
    idempotency_key: str = "",
) -> Call[Fork]:
    """New sandboxes that go on where this one is; they may still be starting when the answer comes
    (see `flows.fork`)."""
    return Call(
        method="POST",
        path=_sandbox(sandbox_id, "fork"),
        body=_without_none(
            count=count,
            expiry=_expiry(expiry),
            metadata=None if metadata is None else dict(metadata),
        ),
        headers={"Idempotency-Key": idempotency_key} if idempotency_key else {},
        read=_one(Fork),
    )


def extend(
    sandbox_id: str, *, seconds: int | None = None, expiry: Expiry | None = None
) -> Call[Sandbox]:
    return Call(
        method="POST",
        path=_sandbox(sandbox_id, "extend"),
        body=_without_none(seconds=seconds, expiry=_expiry(expiry)),
        read=_one(Sandbox),
    )


def ping(sandbox_id: str) -> Call[None]:
    """Counts as activity."""
    return Call(method="POST", path=_sandbox(sandbox_id, "ping"), read=_nothing)


def destroy(sandbox_id: str) -> Call[None]:
    """It may still be going on when the answer comes (see `flows.destroy`)."""
    return Call(method="DELETE", path=_sandbox(sandbox_id), read=_nothing)


def metrics(sandbox_id: str, *, range: str = "10m") -> Call[tuple[Point, ...]]:
    return Call(
        method="GET",
        path=_sandbox(sandbox_id, "metrics"),
        query={"range": range},
        read=_many(Point, "points"),
    )


def logs(sandbox_id: str, *, offset: int = 0) -> Call[Console]:
    """What its console got from `offset` on, 256 KiB at most."""
    return Call(
        method="GET",
        path=_sandbox(sandbox_id, "logs"),
        query={"offset": offset},
        read=_one(Console),
    )


def timings(sandbox_id: str) -> Call[tuple[Operation, ...]]:
    """Newest first."""
    return Call(
        method="GET", path=_sandbox(sandbox_id, "timings"), read=_many(Operation, "operations")
    )


def events(sandbox_id: str, *, limit: int = 100) -> Call[tuple[Event, ...]]:
    """Newest first."""
    return Call(
        method="GET",
        path=_sandbox(sandbox_id, "events"),
        query={"limit": limit},
        read=_many(Event, "events"),
    )


def exec(  # noqa: PLR0913 - one for each field of the request
    sandbox_id: str,
    cmd: str,
    args: Sequence[str] = (),
    *,
    timeout_s: int = 30,
    env: Mapping[str, str] | None = None,
    cwd: str = "",
    user: str = "root",
    stdin: str = "",
) -> Call[ExecResult]:
    """Run a command to its end: 124 when it was out of time. Errors: CommandNotFound,
    CommandNotExecutable."""
    return Call(
        method="POST",
        path=_sandbox(sandbox_id, "exec"),
        body=_command(cmd, args, env, cwd, user)
        | {"timeout_sec": timeout_s}
        | ({"stdin": stdin} if stdin else {}),
        read=_one(ExecResult),
        timeout_s=timeout_s + EXEC_SLACK_S,
    )


def start(  # noqa: PLR0913 - one for each field of the request
    sandbox_id: str,
    cmd: str,
    args: Sequence[str] = (),
    *,
    env: Mapping[str, str] | None = None,
    cwd: str = "",
    user: str = "root",
    tag: str = "",
) -> Call[Started]:
    """Run a command in the background."""
    return Call(
        method="POST",
        path=_sandbox(sandbox_id, "exec"),
        body=_command(cmd, args, env, cwd, user)
        | {"background": True}
        | ({"tag": tag} if tag else {}),
        read=_one(Started),
    )


def processes(sandbox_id: str) -> Call[tuple[Process, ...]]:
    return Call(
        method="GET", path=_sandbox(sandbox_id, "processes"), read=_many(Process, "processes")
    )


def kill_process(sandbox_id: str, selector: str | int, *, signal: str = "SIGKILL") -> Call[None]:
    """selector: a pid or a tag."""
    return Call(
        method="DELETE",
        path=_sandbox(sandbox_id, "processes", str(selector)),
        query={"signal": signal},
        read=_nothing,
    )


def read_file(sandbox_id: str, path: str, *, user: str = "root") -> Call[bytes]:
    return Call(
        method="GET",
        path=_sandbox(sandbox_id, "files"),
        query={"path": path, "user": user},
        read=lambda answer: answer.body,
    )


def write_file(sandbox_id: str, path: str, content: bytes, *, user: str = "root") -> Call[int]:
    """How many bytes it has now."""
    return Call(
        method="PUT",
        path=_sandbox(sandbox_id, "files"),
        query={"path": path, "user": user},
        content=content,
        headers={"Content-Type": "application/octet-stream"},
        read=lambda answer: int(answer.member("size")),
    )


def list_files(
    sandbox_id: str, path: str, *, depth: int = 1, user: str = "root"
) -> Call[tuple[FileEntry, ...]]:
    return Call(
        method="POST",
        path=_sandbox(sandbox_id, "files", "list"),
        body={"path": path, "depth": depth, "user": user},
        read=_many(FileEntry, "entries"),
    )


def stat(sandbox_id: str, path: str, *, user: str = "root") -> Call[FileEntry]:
    return _entry(sandbox_id, "stat", path, user)


def make_directory(sandbox_id: str, path: str, *, user: str = "root") -> Call[FileEntry]:
    return _entry(sandbox_id, "mkdir", path, user)


def remove(sandbox_id: str, path: str, *, user: str = "root") -> Call[None]:
    """A directory with all that is in it."""
    return Call(
        method="POST",
        path=_sandbox(sandbox_id, "files", "remove"),
        body={"path": path, "user": user},
        read=_nothing,
    )


def templates() -> Call[tuple[Template, ...]]:
    return Call(method="GET", path="/v1/templates", read=_many(Template, "templates"))


def template(name: str) -> Call[Template]:
    return Call(method="GET", path=f"/v1/templates/{_quoted(name)}", read=_one(Template))


def delete_template(name: str) -> Call[None]:
    return Call(method="DELETE", path=f"/v1/templates/{_quoted(name)}", read=_nothing)


def create_snapshot(
    sandbox_id: str,
    name: str = "",
    *,
    pause: bool = True,
    overwrite: bool = False,
    idempotency_key: str = "",
) -> Call[Snapshot | None]:
    """Freeze a sandbox under a name. None: it takes longer (see `flows.snapshot`)."""
    return Call(
        method="POST",
        path="/v1/snapshots",
        query={"overwrite": "true"} if overwrite else {},
        body={"sandbox_id": sandbox_id, "pause": pause} | ({"name": name} if name else {}),
        headers={"Idempotency-Key": idempotency_key} if idempotency_key else {},
        read=lambda answer: None if answer.status == 202 else decode(Snapshot, answer.json()),
    )


def delete_snapshot(name: str) -> Call[None]:
    return Call(method="DELETE", path=f"/v1/snapshots/{_quoted(name)}", read=_nothing)


def hosts() -> Call[tuple[Host, ...]]:
    return Call(method="GET", path="/v1/hosts", read=_many(Host, "hosts"))


def space(host_id: str = "local") -> Call[Space]:
    """What takes disk on a host."""
    return Call(method="GET", path=f"/v1/hosts/{_quoted(host_id)}/space", read=_one(Space))


def prune(
    host_id: str = "local", *, dry_run: bool = False, templates: bool = False
) -> Call[Pruning]:
    """Remove what nobody uses on a host, or only see what that is."""
    return Call(
        method="POST",
        path=f"/v1/hosts/{_quoted(host_id)}/prune",
        body={"dry_run": dry_run, "templates": templates},
        read=_one(Pruning),
        timeout_s=PRUNE_S,
    )


def keys() -> Call[tuple[Key, ...]]:
    return Call(method="GET", path="/v1/keys", read=_many(Key, "keys"))


def create_key(name: str, *, project: str = "") -> Call[Key]:
    """Its `key` is in this answer and in no other."""
    return Call(
        method="POST",
        path="/v1/keys",
        body={"name": name} | ({"project": project} if project else {}),
        read=_one(Key),
    )


def revoke_key(key_id: str) -> Call[None]:
    return Call(method="DELETE", path=f"/v1/keys/{_quoted(key_id)}", read=_nothing)


def _entry(sandbox_id: str, what: str, path: str, user: str) -> Call[FileEntry]:
    return Call(
        method="POST",
        path=_sandbox(sandbox_id, "files", what),
        body={"path": path, "user": user},
        read=lambda answer: decode(FileEntry, answer.member("entry")),
    )


def _command(
    cmd: str, args: Sequence[str], env: Mapping[str, str] | None, cwd: str, user: str
) -> dict[str, Any]:
    return _without_none(
        cmd=cmd,
        args=list(args),
        envs=None if env is None else dict(env),
        cwd=cwd or None,
        user=user or None,
    )


def _expiry(expiry: Expiry | None) -> dict[str, Any] | None:
    if expiry is None:
        return None
    return {"after": expiry.after, "seconds": expiry.seconds, "action": expiry.action}


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _sandbox(sandbox_id: str, *below: str) -> str:
    return "/".join(("/v1/sandboxes", *map(_quoted, (sandbox_id, *below))))


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")


def _nothing(answer: Answer) -> None:
    return None


def _one(kind: type[T]) -> Callable[[Answer], T]:
    return lambda answer: decode(kind, answer.json())


def _many(kind: type[T], name: str) -> Callable[[Answer], tuple[T, ...]]:
    def read(answer: Answer) -> tuple[T, ...]:
        found = answer.member(name)
        if not isinstance(found, list):
            raise unexpected(f"has no list of {name}")
        return tuple(decode(kind, item) for item in found)

    return read
