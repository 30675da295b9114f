"""The gate: whether the agent serves its clients, or for now only the host that froze the guest.

/freeze shuts it, /unfreeze opens it. In between a snapshot may be taken, and a guest restored from
it wakes up with the gate shut: nobody who held a connection, or knew a token, gets anything out of
it before its host has said by /init who it is now. A guest can't see for itself whether it was
restored or its pause failed, so it is told: by an /init with `restored`, or by none.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wrennd.envd.jsontext import Json

# What is answered while the gate is shut.
CONTROL = ("/health", "/init", "/freeze", "/unfreeze")
SHUT_MESSAGE = "the guest is frozen, and its host has not let it go on yet"


def _nothing() -> None:
    pass


class Gate:
    """Where the guest is between a freeze and going on.

    on_change: called whenever the gate was opened or shut.
    are_hooks_due: whether the guest was restored, and its hooks have not run yet.
    reports: what became of the hooks of the last restore, until the next freeze.
    """

    def __init__(self) -> None:
        self.is_open = True
        self.are_hooks_due = False
        self.reports: list[Json] | None = None
        self.on_change: Callable[[], None] = _nothing
        self._restored_with: str | None = None

    def shut(self) -> None:
        self._restored_with = None
        self.reports = None
        if self.is_open:
            self.is_open = False
            self.on_change()

    def open(self) -> None:
        if not self.is_open:
            self.is_open = True
            self.on_change()

    def is_news(self, token: str) -> bool:
        """Whether this restore has not been heard of: each comes with a token of its own, and is
        told again and again until the host has the answer."""
        return self._restored_with != token

    def note_restore(self, token: str) -> None:
        self._restored_with = token
        self.are_hooks_due = True
        self.reports = None
