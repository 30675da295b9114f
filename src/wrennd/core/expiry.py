"""When a sandbox that is left alone ends, and how: a value, and the moment it stands for. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from wrennd.core.errors import InvalidInput

MAX_SECONDS = 365 * 24 * 3600


class After(StrEnum):
    """What the seconds are counted from: the last activity, or the moment they were set."""

    IDLE = "idle"
    DEADLINE = "deadline"


class Action(StrEnum):
    PAUSE = "pause"
    DESTROY = "destroy"


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """So many seconds after something a sandbox is paused or destroyed; 0 seconds: never."""

    after: After = After.IDLE
    seconds: int = 0
    action: Action = Action.PAUSE

    def __post_init__(self) -> None:
        if not 0 <= self.seconds <= MAX_SECONDS:
            raise InvalidInput(
                f"a sandbox can't expire after {self.seconds} seconds",
                hint=f"choose between 1 and {MAX_SECONDS}, or 0 for never",
            )

    def moment_ms(self, *, set_ms: int, active_ms: int) -> int | None:
        """When it is due (ms since 1970), by when it was set and the last activity; None: never."""
        if not self.seconds:
            return None
        since = set_ms if self.after is After.DEADLINE else max(active_ms, set_ms)
        return since + self.seconds * 1000


NEVER = Expiry()
