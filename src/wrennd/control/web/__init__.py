"""The test page, `GET /test`: files as they are, without a build step.

They are read once. Their policy allows what they need and nothing else: no inline script or style,
no other origin, no frame; strings never become markup (trusted types).
"""

import re
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

STATIC = Path(__file__).with_name("static")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")


def routes() -> list[BaseRoute]:
    """`/test` and what belongs to it; `/` leads there."""
    return [
        Route("/", _root, methods=["GET"]),
        Route("/test", _page, methods=["GET"]),
        Route("/test/{name}", _file, methods=["GET"]),
    ]


async def _root(request: Request) -> Response:
    return RedirectResponse("/test")


async def _page(request: Request) -> Response:
    return _response(request, "index.html")


async def _file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _files():
        return PlainTextResponse("there is no such file", status_code=404)
    return _response(request, name)


def _response(request: Request, name: str) -> Response:
    return Response(
        _files()[name],
        media_type=TYPES[Path(name).suffix],
        headers={
            "Content-Security-Policy": policy(request.headers.get("host", "")),
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-cache",
        },
    )


def policy(host: str) -> str:
    """host: the request's own. Not every browser takes 'self' for WebSockets."""
    sockets = f" ws://{host} wss://{host}" if HOST.fullmatch(host) else ""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            f"connect-src 'self'{sockets}",
            "form-action 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


@cache
def _files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in TYPES}
