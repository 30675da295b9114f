"""Errors of the host agent as it sends them, turned into ours; the agent has the other direction.

A Connect error carries an ErrorDetail: `Error.to_wire()` in protobuf. One without it comes from
between us: the socket is not there, the agent died, or something took longer than it may.
"""

from connectrpc.code import Code
from connectrpc.errors import ConnectError

from wrennd.core.errors import Error, InvalidInput, Unavailable
from wrennd.gen.hostagent.hostagent_pb import ErrorDetail

HINT = "is `wrenn up` running? try again in a moment"


class NotConnected(ConnectionError):
    """Raised by the transport when nothing was sent, since nobody listens."""


def to_error(error: ConnectError) -> Error:
    """What an RPC's failure means."""
    for detail in error.details:
        found = detail.value(ErrorDetail)
        if found is not None:
            return Error.from_wire(
                {"code": found.code, "message": found.message, "hint": found.hint}
            )
    if isinstance(error.__cause__, Error):
        return error.__cause__  # raised by what we were sending
    if isinstance(error.__cause__, NotConnected):
        return Unavailable("the host agent does not answer", hint=HINT, is_unsent=True)
    if error.code is Code.DEADLINE_EXCEEDED:
        return late()
    if error.code in (Code.UNAVAILABLE, Code.CANCELED):
        return Unavailable(f"the host agent went away: {error.message}", hint=HINT)
    if error.code in (Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED):
        return InvalidInput(f"the host agent refused a request: {error.message}")
    return Error(f"the host agent answered {error.code.value}: {error.message}")


def late() -> Unavailable:
    """What was asked for may have been done all the same."""
    return Unavailable("the host agent has not answered in time", hint=HINT)
