"""What a guest's agent is told after a start and before it goes on, and what it answers. Pure."""

import base64
import datetime
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from wrennd.host.envd_wire import Reply, understanding

ENTROPY_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a guest is told after every start. None and empty mean: as it was.

    is_restored: whether it was restored from a snapshot since it was last told anything.
    """

    token: str
    sandbox_id: str = ""
    env: Mapping[str, str] | None = None
    is_restored: bool = False

    def to_json(self) -> bytes:
        """With the time of now and fresh entropy: made anew for each attempt."""
        body: dict[str, object] = {
            "accessToken": self.token,
            "timestamp": datetime.datetime.now(datetime.UTC).isoformat(),
            "entropy": base64.b64encode(os.urandom(ENTROPY_BYTES)).decode(),
        }
        if self.env is not None:
            body["envVars"] = dict(self.env)
        if self.sandbox_id:
            body["sandboxId"] = self.sandbox_id
        if self.is_restored:
            body["restored"] = True
        return json.dumps(body).encode()


@dataclass(frozen=True, kw_only=True)
class Initialised:
    """What a restored guest answered.

    clock_error_s: how far its clock may be from ours at most; None when it was not asked.
    warnings: what it could not change about itself, such as its machine-id.
    """

    clock_error_s: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Told:
    """The answer to one order."""

    clock_error_s: float
    warnings: tuple[str, ...]

    @classmethod
    def understand(cls, reply: Reply, began: float, ended: float) -> Self:
        """began, ended: our clock (seconds since 1970) around the call. The guest read its own
        between them, and not before it had spent on the call what it says: so it differs from
        ours by no more than from the farther end of that."""
        if not reply.body:
            return cls(clock_error_s=math.inf, warnings=())
        with understanding("init"):
            found = json.loads(reply.body)
            now = datetime.datetime.fromisoformat(found["now"]).timestamp()
            earliest = began + found["tookUs"] / 1e6
            return cls(
                clock_error_s=max(abs(now - earliest), abs(ended - now)),
                warnings=tuple(str(warning) for warning in found["warnings"]),
            )


@dataclass(frozen=True, kw_only=True)
class HookReport:
    """What became of one hook of the guest's. status: as of a process, `timed out`, `skipped`, or
    why it can't be run."""

    name: str
    status: str
    ms: int

    @property
    def is_ok(self) -> bool:
        return self.status == "exit status 0"

    @classmethod
    def all_of(cls, reply: Reply) -> tuple[Self, ...]:
        """Those of an answer to /unfreeze; none when the guest was not restored."""
        with understanding("unfreeze"):
            found = json.loads(reply.body)["hooks"] if reply.body else []
            return tuple(
                cls(name=str(one["name"]), status=str(one["status"]), ms=int(one["ms"]))
                for one in found
            )
