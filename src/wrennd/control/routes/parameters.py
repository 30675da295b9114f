"""What routes have in common: who calls, which sandbox, Idempotency-Key, documented failures."""

import asyncio
import base64
import binascii
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Request

from wrennd.control.auth import Caller, authenticated
from wrennd.control.lasting import LASTING, Lasting
from wrennd.control.services import Services, services_of
from wrennd.control.shapes import ErrorShape
from wrennd.core.errors import InvalidInput, Unauthorized, WrongState

CallerOf = Annotated[Caller, Depends(authenticated)]
ServicesOf = Annotated[Services, Depends(services_of)]
SandboxId = Annotated[str, Path(pattern=r"^[a-z0-9]{20}$", description="20 of a-z and 0-9")]


async def lasting_caller(
    request: Request, sandbox_id: SandboxId, caller: CallerOf, services: ServicesOf
) -> Caller:
    """The dependency of routes. Errors: Unauthorized."""
    lasting: Lasting = getattr(request.state, LASTING)
    loop = asyncio.get_running_loop()
    last_s = services.settings.bounds.last_s

    def revoked() -> None:
        lasting.break_off(Unauthorized("this API key was revoked"))

    def ended() -> None:
        reason = WrongState(f"sandbox {sandbox_id} does not run any more")
        lasting.held.callback(loop.call_later(last_s, lasting.break_off, reason).cancel)

    lasting.held.enter_context(services.authentication.when_revoked(caller, revoked))
    lasting.held.enter_context(services.ends.call(sandbox_id, ended))
    return caller


LastingCallerOf = Annotated[Caller, Depends(lasting_caller)]

TemplateName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
IdempotencyKey = Annotated[
    str,
    Header(alias="Idempotency-Key", pattern=r"^[!-~]*$", max_length=255),
]

Responses = dict[int | str, dict[str, Any]]


def failures(*statuses: int) -> Responses:
    """For the OpenAPI document: besides what every route may answer, these."""
    always = (400, 401, 408, 413, 503)
    return {status: {"model": ErrorShape} for status in sorted({*always, *statuses})}


# A route that looks at a sandbox, and one that does something to it or in it.
LOOKS = failures(404)
ACTS = failures(404, 409, 500, 502, 504)


def to_cursor(created_ms: int, last: str) -> str:
    """Opaque to clients."""
    return base64.urlsafe_b64encode(f"{created_ms}.{last}".encode()).decode().rstrip("=")


def of_cursor(cursor: str) -> tuple[int, str]:
    """Errors: InvalidInput."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        created, _, last = text.partition(".")
        number = int(created)
    except (binascii.Error, ValueError):
        number, last = -1, ""
    if not 0 <= number < 1 << 62 or not last:
        raise InvalidInput("this cursor is not one of ours", hint="use next_cursor as it came")
    return number, last
