"""The plain HTTP endpoints behind the token, but for /files, which may do without it.

Each imports what it needs when it is first called.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wrennd.envd.connection import Exchange, Handler
    from wrennd.envd.freeze import Thaw
    from wrennd.envd.groups import Groups
    from wrennd.envd.init import Guest
    from wrennd.envd.jsontext import Json
    from wrennd.envd.loop import Loop
    from wrennd.envd.metrics import Metrics

    # The methods that an endpoint takes, and what makes its handler.
    Endpoint = tuple[tuple[str, ...], Callable[[Exchange], Handler]]


class Value:
    """Handler: one JSON value that depends on nothing in the body."""

    def __init__(self, exchange: Exchange, value: Json) -> None:
        self._exchange = exchange
        self._value = value

    def data(self, data: bytes) -> None:
        pass

    def end(self) -> None:
        self._exchange.reply_json(200, self._value)

    def drained(self) -> None:
        pass

    def closed(self) -> None:
        pass


class Endpoints:
    """What the endpoints work with."""

    def __init__(self, loop: Loop, guest: Guest, groups: Groups) -> None:
        self._loop = loop
        self._groups = groups
        self._guest = guest
        self._made_metrics: Metrics | None = None
        self._made_thaw: Thaw | None = None
        self._access = guest.access
        self._settings = guest.settings

    def open(self) -> dict[str, Endpoint]:
        """Those that check the token, or a signature, themselves."""
        return {"/files": (("GET", "POST"), self._files)}

    def guarded(self) -> dict[str, Endpoint]:
        """Those that are only reached with the token."""
        return {
            "/files/compose": (("POST",), self._compose),
            "/metrics": (("GET",), self._metrics),
            "/envs": (("GET",), lambda exchange: Value(exchange, {**self._settings.env})),
            "/freeze": (("POST",), self._freeze),
            "/unfreeze": (("POST",), self._unfreeze),
            "/grow": (("POST",), self._grow),
        }

    def _files(self, exchange: Exchange) -> Handler:
        if exchange.request.method == "GET":
            from wrennd.envd.download import Download

            return Download(exchange, self._loop, self._access, self._settings)
        from wrennd.envd.upload import Upload

        return Upload(exchange, self._loop, self._access, self._settings)

    def _metrics(self, exchange: Exchange) -> Handler:
        if self._made_metrics is None:
            from wrennd.envd.metrics import Metrics

            self._made_metrics = Metrics()
        return Value(exchange, self._made_metrics.sample())

    def _freeze(self, exchange: Exchange) -> Handler:
        from wrennd.envd.freeze import Freeze

        return Freeze(exchange, self._loop, self._groups, self._guest.gate)

    def _unfreeze(self, exchange: Exchange) -> Handler:
        from wrennd.envd.freeze import Thaw, Unfreeze

        if self._made_thaw is None:
            self._made_thaw = Thaw(self._loop, self._groups, self._guest)
        return Unfreeze(exchange, self._made_thaw)

    def _grow(self, exchange: Exchange) -> Handler:
        from wrennd.envd.grow import Grow

        return Grow(exchange, self._loop)

    def _compose(self, exchange: Exchange) -> Handler:
        from wrennd.envd.compose import Compose

        return Compose(exchange, self._loop, self._settings)
