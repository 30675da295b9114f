"""The one error tree, and its only mapping to the wire and to HTTP.

Error                  internal            500  we broke it
├─ InvalidInput        invalid_argument    400  the caller's values are wrong; retrying can't help
│  ├─ CommandNotFound       command_not_found       400  no such program in the sandbox
│  └─ CommandNotExecutable  command_not_executable  400  it may not be executed there
├─ Unauthorized        unauthorized        401  no API key, or not one that counts
├─ Forbidden           forbidden           403  this API key may not do that
├─ NotFound            not_found           404  no such sandbox, image, template
├─ AlreadyExists       already_exists      409  the name is taken
├─ WrongState          wrong_state         409  not while the sandbox is what it is now
├─ TooLarge            too_large           413  a request is larger than it may be
├─ NoCapacity          no_capacity         503  memory, disk or slots are used up for now
├─ HostUnsuitable      host_unsuitable     503  the host lacks a package, right or kernel feature
├─ Unavailable         unavailable         503  the server's database or host does not answer now
├─ ImageBroken         image_broken        500  a kernel or image is missing, incomplete or corrupt
├─ SnapshotBroken      snapshot_broken     500  a snapshot lacks files, or they were damaged
├─ SnapshotIncompatible  snapshot_incompatible  409  made by another VMM, CPU or newer program
├─ DiskFailed          disk_failed         500  a write to a sandbox's disk failed: data are lost
├─ DeadlineExceeded    deadline_exceeded   504  something took longer than it may
├─ VmmFailed           vmm_failed          502  the VMM died, refused or could not be started
│  └─ VmmRefused       vmm_refused         502  the VMM answered a call with an error and lives on
└─ GuestFailed         guest_failed        502  the guest panicked, hung, or its agent misbehaved

`str(error)` is one sentence with names and values in it; `hint` says what to do about it. A new
class needs a caller that acts differently on it.
"""

from typing import ClassVar


class Error(Exception):
    """Base class. A subclass states its wire code and HTTP status once, here."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    by_code: ClassVar[dict[str, type["Error"]]] = {}

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __init_subclass__(cls) -> None:
        if cls.code in Error.by_code:
            raise TypeError(f"duplicate error code {cls.code!r}")
        Error.by_code[cls.code] = cls

    def to_wire(self) -> dict[str, str]:
        wire = {"code": self.code, "message": str(self)}
        return wire | {"hint": self.hint} if self.hint else wire

    @classmethod
    def from_wire(cls, body: dict[str, str]) -> "Error":
        found = Error.by_code.get(body["code"], Error)
        return found(body["message"], hint=body.get("hint", ""))


class InvalidInput(Error):
    code = "invalid_argument"
    status = 400


class CommandNotFound(InvalidInput):
    code = "command_not_found"


class CommandNotExecutable(InvalidInput):
    code = "command_not_executable"


class Unauthorized(Error):
    code = "unauthorized"
    status = 401


class Forbidden(Error):
    code = "forbidden"
    status = 403


class NotFound(Error):
    code = "not_found"
    status = 404


class AlreadyExists(Error):
    code = "already_exists"
    status = 409


class WrongState(Error):
    code = "wrong_state"
    status = 409


class TooLarge(Error):
    code = "too_large"
    status = 413


class NoCapacity(Error):
    code = "no_capacity"
    status = 503


class HostUnsuitable(Error):
    code = "host_unsuitable"
    status = 503


class Unavailable(Error):
    """`is_unsent`: what was asked for did not begin; else nobody knows whether it did."""

    code = "unavailable"
    status = 503

    def __init__(self, message: str, *, hint: str = "", is_unsent: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.is_unsent = is_unsent


class ImageBroken(Error):
    code = "image_broken"
    status = 500


class SnapshotBroken(Error):
    code = "snapshot_broken"
    status = 500


class SnapshotIncompatible(Error):
    code = "snapshot_incompatible"
    status = 409


class DiskFailed(Error):
    code = "disk_failed"
    status = 500


class DeadlineExceeded(Error):
    code = "deadline_exceeded"
    status = 504


class VmmFailed(Error):
    code = "vmm_failed"
    status = 502


class VmmRefused(VmmFailed):
    code = "vmm_refused"


class GuestFailed(Error):
    code = "guest_failed"
    status = 502
