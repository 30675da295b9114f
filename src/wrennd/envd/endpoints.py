"""The plain HTTP endpoints behind the token, but for /files, which may do without it.

Each imports what it needs when it is first called.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wrennd.envd.auth import Access
    from wrennd.envd.connection import Exchange, Handler
    from wrennd.envd.init import Settings
    from wrennd.envd.loop import Loop

    # The methods that an endpoint takes, and what makes its handler.
    Endpoint = tuple[tuple[str, ...], Callable[[Exchange], Handler]]


class Endpoints:
    """What the endpoints work with."""

    def __init__(self, loop: Loop, access: Access, settings: Settings) -> None:
        self._loop = loop
        self._access = access
        self._settings = settings

    def open(self) -> dict[str, Endpoint]:
        """Those that check the token, or a signature, themselves."""
        return {"/files": (("GET", "POST"), self._files)}

    def guarded(self) -> dict[str, Endpoint]:
        """Those that are only reached with the token."""
        return {"/files/compose": (("POST",), self._compose)}

    def _files(self, exchange: Exchange) -> Handler:
        if exchange.request.method == "GET":
            from wrennd.envd.download import Download

            return Download(exchange, self._loop, self._access, self._settings)
        from wrennd.envd.upload import Upload

        return Upload(exchange, self._loop, self._access, self._settings)

    def _compose(self, exchange: Exchange) -> Handler:
        from wrennd.envd.compose import Compose

        return Compose(exchange, self._loop, self._settings)
