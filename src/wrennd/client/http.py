"""What both clients have in common of HTTP: where the server is, and what its errors mean. Pure."""

import ipaddress
import json
import urllib.parse
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx

import wrennd
from wrennd.client.calls import Answer, Call
from wrennd.core.config import DEFAULT_BASE_URL, ClientConfig
from wrennd.core.errors import DeadlineExceeded, Error, InvalidInput, Unauthorized, Unavailable

CONNECT_S = 5.0
WHERE_KEYS_ARE = (
    "WRENN_API_KEY or ~/.config/wrenn/config.toml has one; wrenn up says where its first one is"
)


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server's address and the key for it."""

    base_url: str
    api_key: str

    @classmethod
    def of(cls, base_url: str, api_key: str) -> "Server":
        """With what is not given taken from the environment and the user's config.toml.

        Errors: InvalidInput when there is no key, or the address is none.
        """
        config = ClientConfig.from_environ()
        found = cls(
            base_url=(base_url or config.base_url or DEFAULT_BASE_URL).rstrip("/"),
            api_key=api_key or config.api_key,
        )
        if urllib.parse.urlsplit(found.base_url).scheme not in ("http", "https"):
            raise InvalidInput(
                f"{found.base_url!r} is no server's address", hint=f"as in {DEFAULT_BASE_URL}"
            )
        if not found.api_key:
            raise InvalidInput(
                f"there is no key for {found.base_url}",
                hint=WHERE_KEYS_ARE,
            )
        return found

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.api_key, "User-Agent": f"wrennd/{wrennd.__version__}"}

    @property
    def is_local(self) -> bool:
        """Whether no proxy of the environment may come between."""
        host = urllib.parse.urlsplit(self.base_url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    @property
    def options(self) -> dict[str, Any]:
        """For either client of httpx."""
        return {
            "base_url": self.base_url,
            "headers": self.headers,
            "trust_env": not self.is_local,
            "follow_redirects": False,
        }

    def websocket_url(self, path: str) -> str:
        return "ws" + self.base_url.removeprefix("http") + path


def request(call: Call[Any]) -> dict[str, Any]:
    """The arguments of httpx's `request`."""
    has_body = call.content is None and call.body is not None
    return {
        "method": call.method,
        "url": call.path,
        "params": dict(call.query),
        "headers": dict(call.headers),
        **({"json": call.body} if has_body else {"content": call.content}),
        "timeout": timeout(call.timeout_s),
    }


def timeout(seconds: float | None) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=CONNECT_S)


def answer(response: httpx.Response) -> Answer:
    """Of a response that has been read. Errors: what the server says."""
    if not response.is_success:
        raise error_of(response.status_code, response.content)
    return Answer(status=response.status_code, body=response.content)


def error_of(status: int, body: bytes) -> Error:
    """The error that an answer is."""
    try:
        said = json.loads(body)["error"]
        found = Error.from_wire({name: str(value) for name, value in said.items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        shown = body[:200].decode(errors="replace").strip()
        return Error(
            f"the server answered with status {status}: {shown}",
            hint="is it Wrenn's, and of this version?",
        )
    if isinstance(found, Unauthorized):  # the server's hint is about headers
        return Unauthorized(str(found), hint=WHERE_KEYS_ARE)
    return found


def raise_for(error: httpx.HTTPError, server: Server) -> NoReturn:
    """No answer came. Errors: DeadlineExceeded, Unavailable."""
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        raise DeadlineExceeded(f"{server.base_url} did not answer in time") from error
    raise unreachable(server, error) from error


def unreachable(server: Server, error: Exception) -> Unavailable:
    return Unavailable(
        f"no server answers at {server.base_url}: {str(error) or type(error).__name__}",
        hint="start it: wrenn up",
    )
