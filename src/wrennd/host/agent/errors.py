"""Errors as they go over the agent's RPC: `core/errors.py` in the detail of a Connect error. Pure.

The control plane has the way back; a test of its own holds both together.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.request import RequestContext

from wrennd.core.errors import (
    AlreadyExists,
    DeadlineExceeded,
    DiskFailed,
    Error,
    GuestFailed,
    HostUnsuitable,
    ImageBroken,
    InvalidInput,
    NoCapacity,
    NotFound,
    SnapshotBroken,
    SnapshotIncompatible,
    VmmFailed,
    WrongState,
)
from wrennd.gen.hostagent.hostagent_pb import ErrorDetail

log = logging.getLogger(__name__)
Req = TypeVar("Req")
Res = TypeVar("Res")

# For clients that know nothing of ours, and for who reads a trace.
_CODES: dict[type[Error], Code] = {
    InvalidInput: Code.INVALID_ARGUMENT,
    NotFound: Code.NOT_FOUND,
    AlreadyExists: Code.ALREADY_EXISTS,
    WrongState: Code.FAILED_PRECONDITION,
    NoCapacity: Code.RESOURCE_EXHAUSTED,
    HostUnsuitable: Code.UNAVAILABLE,
    ImageBroken: Code.INTERNAL,
    SnapshotBroken: Code.DATA_LOSS,
    SnapshotIncompatible: Code.FAILED_PRECONDITION,
    DiskFailed: Code.DATA_LOSS,
    DeadlineExceeded: Code.DEADLINE_EXCEEDED,
    VmmFailed: Code.ABORTED,
    GuestFailed: Code.ABORTED,
    Error: Code.INTERNAL,
}


def to_connect(error: Error) -> ConnectError:
    """The error as it goes out; its detail is `error.to_wire()`."""
    code = next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)
    return ConnectError(code, str(error), details=[ErrorDetail(**error.to_wire())])


class Translating:
    """An interceptor: what a method raises leaves as a Connect error; what nobody foresaw is
    logged, and told as no more than that."""

    async def intercept_unary(
        self,
        call_next: Callable[[Req, RequestContext[Req, Res]], Awaitable[Res]],
        request: Req,
        ctx: RequestContext[Req, Res],
        /,
    ) -> Res:
        try:
            return await call_next(request, ctx)
        except Exception as error:
            raise _translated(error) from error

    async def intercept_client_stream(
        self,
        call_next: Callable[[AsyncIterator[Req], RequestContext[Req, Res]], Awaitable[Res]],
        request: AsyncIterator[Req],
        ctx: RequestContext[Req, Res],
        /,
    ) -> Res:
        try:
            return await call_next(request, ctx)
        except Exception as error:
            raise _translated(error) from error

    async def intercept_server_stream(
        self,
        call_next: Callable[[Req, RequestContext[Req, Res]], AsyncIterator[Res]],
        request: Req,
        ctx: RequestContext[Req, Res],
        /,
    ) -> AsyncIterator[Res]:
        stream = call_next(request, ctx)
        try:
            async for response in stream:
                yield response
        except Exception as error:
            raise _translated(error) from error
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()


def _translated(error: Exception) -> ConnectError:
    if isinstance(error, ConnectError):
        return error
    if isinstance(error, Error):
        return to_connect(error)
    log.error("internal error", exc_info=error)
    return to_connect(Error("the host agent failed; its log says how"))
