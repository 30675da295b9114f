"""Which handler answers which request, and who is let in."""

from __future__ import annotations

from wrennd.envd.gate import CONTROL, SHUT_MESSAGE
from wrennd.envd.init import VERSION_HEADER, Init

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wrennd.envd.connection import Exchange, Handler, Headers
    from wrennd.envd.endpoints import Endpoints
    from wrennd.envd.init import Guest
    from wrennd.envd.rpc import Service

MAX_UNWANTED_BYTES = 1 << 20
PREFLIGHT: Headers = [
    ("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"),
    ("Access-Control-Allow-Headers", "*"),
    ("Access-Control-Max-Age", "7200"),
]


class Answer:
    """Handler: one reply that depends on nothing in the body. The body is thrown away."""

    def __init__(
        self, exchange: Exchange, status: int, message: str = "", headers: Headers | None = None
    ) -> None:
        self._exchange = exchange
        self._status = status
        self._message = message
        self._headers = headers or []
        self._unwanted = 0

    def data(self, data: bytes) -> None:
        self._unwanted += len(data)
        if self._unwanted > MAX_UNWANTED_BYTES:
            self.end()

    def end(self) -> None:
        if self._message:
            body = {"code": self._status, "message": self._message}
            self._exchange.reply_json(self._status, body, self._headers)
        else:
            self._exchange.reply(self._status, self._headers)

    def drained(self) -> None:
        pass

    def closed(self) -> None:
        pass


class Router:
    """Finds the handler of an exchange."""

    def __init__(
        self,
        guest: Guest,
        services: dict[str, Callable[[], Service]],
        endpoints: Endpoints,
    ) -> None:
        """services: how to make each of them, which is done when it is first asked for: what no
        guest uses is never imported."""
        self._guest = guest
        self._makers = services
        self._open = endpoints.open()
        self._guarded = endpoints.guarded()
        self._services: dict[str, Service] = {}

    def __call__(self, exchange: Exchange) -> Handler:
        request = exchange.request
        if not self._guest.gate.is_open and request.path not in CONTROL:
            return Answer(exchange, 503, SHUT_MESSAGE)
        if request.method == "OPTIONS":
            return Answer(exchange, 204, headers=PREFLIGHT)
        if request.path == "/health":
            return self._only(exchange, "GET") or Answer(exchange, 204, headers=VERSION_HEADER)
        if request.path == "/init":
            return self._only(exchange, "POST") or Init(exchange, self._guest)
        if request.path in self._open:
            methods, make = self._open[request.path]
            return self._only(exchange, *methods) or make(exchange)
        if not self._guest.access.allows(request.headers):
            return Answer(exchange, 401, "the access token is missing or wrong")
        if request.path in self._guarded:
            methods, make = self._guarded[request.path]
            return self._only(exchange, *methods) or make(exchange)
        return self._rpc(exchange)

    def _rpc(self, exchange: Exchange) -> Handler:
        path = exchange.request.path
        name, _, method = path[1:].partition("/")
        service = self._service(name)
        if service is None:
            return Answer(exchange, 404, f"there is no {path}")
        refusal = self._only(exchange, "POST")
        if refusal is not None:
            return refusal
        wanted = service.content_type(method)
        given = exchange.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if wanted and given != wanted:
            kind = [("Accept-Post", wanted)]
            return Answer(exchange, 415, f"content type {given!r} is not {wanted}", kind)
        return service.handler(exchange, method)

    def _service(self, name: str) -> Service | None:
        if name in self._makers:
            self._services[name] = self._makers.pop(name)()
        return self._services.get(name)

    def _only(self, exchange: Exchange, *methods: str) -> Handler | None:
        """The refusal of any other method, or None."""
        if exchange.request.method in methods:
            return None
        allowed = ", ".join(methods)
        text = f"{exchange.request.path} takes {allowed} only"
        return Answer(exchange, 405, text, [("Allow", allowed)])
