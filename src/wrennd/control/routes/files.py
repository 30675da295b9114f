"""Files inside a sandbox, the same under /v1/sandboxes and /v1/capsules."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from protobuf import Oneof
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Send

from wrennd.control.agent_client import closing, paced
from wrennd.control.commands import DEFAULT_USER
from wrennd.control.limits import UPLOAD_BYTES
from wrennd.control.multipart import read_upload
from wrennd.control.routes.inside import CALL_MS
from wrennd.control.routes.parameters import ACTS, CallerOf, LastingCallerOf, SandboxId, ServicesOf
from wrennd.control.services import Services
from wrennd.core.errors import InvalidInput
from wrennd.gen.hostagent import hostagent_pb as pb

MAX_PATH = 4096
MAX_DEPTH = 64
BYTES = "application/octet-stream"
CHUNK = 256 << 10
CONTENT: dict[str, Any] = {"content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}}
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["path", "file"],
                    "properties": {
                        "path": {"type": "string", "minLength": 1, "maxLength": MAX_PATH},
                        "file": {"type": "string", "format": "binary"},
                    },
                }
            }
        },
    }
}

PathText = Annotated[str, Field(min_length=1, max_length=MAX_PATH)]
UserText = Annotated[str, Field(min_length=1, max_length=64)]


class PathShape(BaseModel):
    model_config = ConfigDict(strict=True)

    path: PathText
    user: UserText = DEFAULT_USER


class ListShape(PathShape):
    depth: Annotated[int, Field(ge=0, le=MAX_DEPTH)] = 1


class EntryShape(BaseModel):
    name: str
    path: str
    type: Literal["file", "directory", "symlink", "unknown"]
    size: int
    mode: int
    permissions: str
    owner: str
    group: str
    modified_at: int
    symlink_target: str | None = None


class EntryListShape(BaseModel):
    entries: list[EntryShape]


class OneEntryShape(BaseModel):
    entry: EntryShape


class WrittenShape(BaseModel):
    path: str
    size: int


def check_path(path: str) -> str:
    """Errors: InvalidInput."""
    if "\0" in path:
        raise InvalidInput("a path can't have a NUL byte")
    if not 0 < len(path.encode(errors="surrogatepass")) <= MAX_PATH:
        raise InvalidInput(f"a path has 1 to {MAX_PATH} bytes")
    return path


def _entry(entry: pb.FileEntry | None) -> EntryShape:
    entry = entry or pb.FileEntry()
    kinds: dict[str, Literal["file", "directory", "symlink"]] = {
        "file": "file",
        "directory": "directory",
        "symlink": "symlink",
    }
    return EntryShape(
        name=entry.name,
        path=entry.path,
        type=kinds.get(entry.type, "unknown"),
        size=entry.size,
        mode=entry.mode,
        permissions=entry.permissions,
        owner=entry.owner,
        group=entry.group,
        modified_at=entry.modified_unix,
        symlink_target=entry.symlink_target or None,
    )


async def download(
    sandbox_id: SandboxId,
    caller: LastingCallerOf,
    services: ServicesOf,
    path: Annotated[str, Query(min_length=1, max_length=MAX_PATH)],
    user: Annotated[str, Query(min_length=1, max_length=64)] = DEFAULT_USER,
) -> Response:
    """A file's content, streamed."""
    return await _read(services, caller.project, sandbox_id, check_path(path), user)


async def read(
    sandbox_id: SandboxId, caller: LastingCallerOf, services: ServicesOf, body: PathShape
) -> Response:
    """A file's content, streamed."""
    return await _read(services, caller.project, sandbox_id, check_path(body.path), body.user)


async def _read(
    services: Services, project: str, sandbox_id: str, path: str, user: str
) -> Response:
    """The first piece is fetched before the answer begins: until then it can be an error."""
    row = await services.operations.ready(project, sandbox_id)
    request = pb.ReadFileRequest(sandbox_id=row.id, path=path, user=user)
    pieces = paced(services.agent.rpc.read_file(request))
    first = await anext(pieces, None)
    if first is None:
        return Response(b"", media_type=BYTES)

    async def content() -> AsyncIterator[bytes]:
        async with closing(pieces):
            yield bytes(first.chunk)
            async for piece in pieces:
                yield bytes(piece.chunk)

    return _Streamed(content(), media_type=BYTES)


class _Streamed(StreamingResponse):
    """One that ends what it shows when it is broken off: the host is to know at once, not when the
    generator is collected."""

    async def stream_response(self, send: Send) -> None:
        assert isinstance(self.body_iterator, AsyncGenerator)
        async with aclosing(self.body_iterator):
            await super().stream_response(send)


async def upload(
    request: Request,
    sandbox_id: SandboxId,
    caller: LastingCallerOf,
    services: ServicesOf,
    path: Annotated[str, Query(min_length=1, max_length=MAX_PATH)],
    user: Annotated[str, Query(min_length=1, max_length=64)] = DEFAULT_USER,
) -> WrittenShape:
    """Write the request's body to a file, as it arrives."""
    target = _target(sandbox_id, check_path(path), user)
    await services.operations.ready(caller.project, sandbox_id)
    size = await _write(services, target, request.stream())
    return WrittenShape(path=path, size=size)


async def write(
    request: Request, sandbox_id: SandboxId, caller: LastingCallerOf, services: ServicesOf
) -> Response:
    """Write the form's `file` to its `path`: 100 MB at most."""
    return await _write_form(request, sandbox_id, caller, services, UPLOAD_BYTES)


async def write_stream(
    request: Request, sandbox_id: SandboxId, caller: LastingCallerOf, services: ServicesOf
) -> Response:
    """Write the form's `file` to its `path`, as it arrives."""
    return await _write_form(request, sandbox_id, caller, services, None)


async def _write_form(
    request: Request, sandbox_id: str, caller: CallerOf, services: Services, max_bytes: int | None
) -> Response:
    await services.operations.ready(caller.project, sandbox_id)
    kind = request.headers.get("content-type", "")
    form = await read_upload(kind, request.stream(), max_bytes=max_bytes)
    if "path" not in form.fields:
        raise InvalidInput("this form has no path before its file")
    user = form.fields.get("user", DEFAULT_USER)
    target = _target(sandbox_id, check_path(form.fields["path"]), user)
    await _write(services, target, form.content)
    return Response(status_code=204)


def _target(sandbox_id: str, path: str, user: str) -> pb.WriteFileRequest.Target:
    return pb.WriteFileRequest.Target(sandbox_id=sandbox_id, path=path, user=user)


async def _write(
    services: Services, target: pb.WriteFileRequest.Target, content: AsyncIterator[bytes]
) -> int:
    """Nothing is written where `content` breaks off: the host renames at the end."""

    async def messages() -> AsyncIterator[pb.WriteFileRequest]:
        head: Oneof[Literal["target"], pb.WriteFileRequest.Target] = Oneof("target", target)
        yield pb.WriteFileRequest(part=head)
        async for piece in content:
            for at in range(0, len(piece), CHUNK):
                part: Oneof[Literal["chunk"], bytes] = Oneof("chunk", piece[at : at + CHUNK])
                yield pb.WriteFileRequest(part=part)

    answer = await services.agent.rpc.write_file(messages())
    return answer.size


async def list_directory(
    sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf, body: ListShape
) -> EntryListShape:
    """What is in a directory, `depth` levels deep."""
    path = check_path(body.path)
    row = await services.operations.ready(caller.project, sandbox_id)
    request = pb.ListDirectoryRequest(
        sandbox_id=row.id, path=path, depth=max(1, body.depth), user=body.user
    )
    answer = await services.agent.rpc.list_directory(request, timeout_ms=CALL_MS)
    return EntryListShape(entries=[_entry(each) for each in answer.entries])


async def stat(
    sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf, body: PathShape
) -> OneEntryShape:
    """One file or directory."""
    path = check_path(body.path)
    row = await services.operations.ready(caller.project, sandbox_id)
    request = pb.StatPathRequest(sandbox_id=row.id, path=path, user=body.user)
    answer = await services.agent.rpc.stat_path(request, timeout_ms=CALL_MS)
    return OneEntryShape(entry=_entry(answer.entry))


async def make_directory(
    sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf, body: PathShape
) -> OneEntryShape:
    """Make a directory, with its parents."""
    path = check_path(body.path)
    row = await services.operations.ready(caller.project, sandbox_id)
    request = pb.MakeDirectoryRequest(sandbox_id=row.id, path=path, user=body.user)
    answer = await services.agent.rpc.make_directory(request, timeout_ms=CALL_MS)
    return OneEntryShape(entry=_entry(answer.entry))


async def remove(
    sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf, body: PathShape
) -> Response:
    """Remove a file, or a directory with all that is in it."""
    path = check_path(body.path)
    row = await services.operations.ready(caller.project, sandbox_id)
    request = pb.RemovePathRequest(sandbox_id=row.id, path=path, user=body.user)
    await services.agent.rpc.remove_path(request, timeout_ms=CALL_MS)
    return Response(status_code=204)


def router(prefix: str, tag: str) -> APIRouter:
    """The routes below a sandbox's own."""
    routes = APIRouter(prefix=f"{prefix}/{{sandbox_id}}/files", tags=[tag], responses=ACTS)
    add = routes.add_api_route
    content: dict[str, Any] = {"response_class": StreamingResponse, "responses": {200: CONTENT}}
    body = {"requestBody": {"required": True, **CONTENT}}
    add("", download, methods=["GET"], **content)
    add("", upload, methods=["PUT"], openapi_extra=body)
    add("/read", read, methods=["POST"], **content)
    add("/stream/read", read, methods=["POST"], **content)
    add("/write", write, methods=["POST"], status_code=204, openapi_extra=FORM)
    add("/stream/write", write_stream, methods=["POST"], status_code=204, openapi_extra=FORM)
    add("/list", list_directory, methods=["POST"])
    add("/stat", stat, methods=["POST"])
    add("/mkdir", make_directory, methods=["POST"])
    add("/remove", remove, methods=["POST"], status_code=204)
    return routes
