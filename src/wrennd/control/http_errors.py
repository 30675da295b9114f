"""Every failure of a request as a body of ours; docs/api.md has the shapes.

Under /v1 `{"error": {code, message, hint?}}`, elsewhere `{"code": <status>, "message"}`. Under
/v1/capsules the codes are those of the older API.
"""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from wrennd.core.errors import Error, InvalidInput, Unavailable, WrongState

API, CAPSULES = "/v1", "/v1/capsules"
CODES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "too_large",
    415: "invalid_argument",
}
# What the older API's clients tell apart; the rest goes by its own name.
OLDER_CODES = {
    "invalid_argument": "invalid_request",
    "command_not_found": "invalid_request",
    "command_not_executable": "invalid_request",
    "wrong_state": "invalid_state",
    "snapshot_incompatible": "invalid_state",
    "already_exists": "conflict",
    "no_capacity": "host_unavailable",
    "host_unsuitable": "host_unavailable",
    "unavailable": "host_unavailable",
    "vmm_failed": "agent_error",
    "vmm_refused": "agent_error",
    "guest_failed": "agent_error",
    "deadline_exceeded": "agent_error",
    "internal": "internal_error",
    "image_broken": "internal_error",
    "snapshot_broken": "internal_error",
    "disk_failed": "internal_error",
}
SHOWN_INPUT = 80

log = logging.getLogger(__name__)


def is_under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def body(path: str, status: int, wire: dict[str, str]) -> dict[str, Any]:
    """The body that belongs to a path."""
    if not is_under(path, API):
        return {"code": status, "message": wire["message"]}
    if is_under(path, CAPSULES):
        return {"error": {**wire, "code": OLDER_CODES.get(wire["code"], wire["code"])}}
    return {"error": wire}


def answer(path: str, status: int, wire: dict[str, str]) -> JSONResponse:
    headers = {}
    if status == 503:
        headers["Retry-After"] = "1"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body(path, status, wire), status, headers)


def install(app: FastAPI) -> None:
    """Register the handlers."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Error)
        if isinstance(error, WrongState | Unavailable):
            request.app.state.services.reconciler.poke()  # our row may be behind
        return answer(request.url.path, error.status, error.to_wire())

    async def theirs(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return from_http(request.url.path, error)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        wrong = InvalidInput(_sentence(error))
        return answer(request.url.path, wrong.status, wrong.to_wire())

    async def broken(request: Request, error: Exception) -> JSONResponse:
        log.error("a request broke", extra={"path": request.url.path}, exc_info=error)
        return answer(request.url.path, 500, Error("the server broke; its log says why").to_wire())

    app.add_exception_handler(Error, ours)
    app.add_exception_handler(HTTPException, theirs)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, broken)


def from_http(path: str, error: HTTPException) -> JSONResponse:
    """What the framework itself refuses: unknown routes, wrong methods, broken bodies."""
    code = CODES.get(error.status_code, "invalid_argument")
    messages = {
        404: f"there is nothing at {path[:SHOWN_INPUT]}",
        405: f"this can't be done to {path[:SHOWN_INPUT]}",
    }
    message = messages.get(error.status_code, str(error.detail))
    found = answer(path, error.status_code, {"code": code, "message": message})
    found.headers.update(error.headers or {})
    return found


def _sentence(error: RequestValidationError) -> str:
    """The first thing that is wrong, and how many more there are. Never the value itself."""
    wrong = error.errors()
    first = wrong[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return f"{where[:SHOWN_INPUT]}: {first['msg']}{more}"
