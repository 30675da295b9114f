"""Which port of which sandbox a request is for, and what of it may be passed on. Pure.

Two forms. By host name: `{port}-{id}.{domain}`. By the headers `E2b-Sandbox-Id` and
`E2b-Sandbox-Port`, for programs that reach the server by IP address, as `localhost` or as
`sandbox.*`; another site's page can't send them, since a browser would ask first.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from wrennd.core.ids import SANDBOX_ID

ENVD_PORT = 49983
ID_HEADER, PORT_HEADER = b"e2b-sandbox-id", b"e2b-sandbox-port"
NAME = re.compile(r"([^-.]+)-([^-.]+)")
PORT = re.compile(r"[0-9]{1,5}")
# All of the guest agent that is not the host's alone. What it serves wants its token.
ENVD_PATHS = ("/health", "/files", "/files/compose", "/metrics", "/envs")
ENVD_SERVICES = re.compile(r"/(process\.Process|filesystem\.Filesystem)/[A-Za-z]+")

Headers = list[tuple[bytes, bytes]]
# RFC 9110, 7.6.1, and what each hop says for itself.
HOP_HEADERS = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
        *(b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"),
    )
)
# Ours: what runs in a sandbox is a stranger.
OUR_HEADERS = frozenset(
    (b"x-api-key", b"e2b-traffic-access-token", ID_HEADER, PORT_HEADER, b"forwarded")
)
FORWARDED = (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto")
OUR_KEY = re.compile(rb"\s*bearer\s+e2b_[0-9a-f]+\s*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A port of a sandbox."""

    sandbox_id: str
    port: int


class BadAddress(ValueError):
    """It is for a sandbox, but for none that there can be."""


def find(headers: Iterable[tuple[bytes, bytes]], domain: str) -> Wanted | None:
    """None: it is for the server itself. Errors: BadAddress."""
    found = {name.lower(): value for name, value in headers}
    host = _host_name(found.get(b"host", b"").decode("latin-1"))
    above = domain.lower().rpartition(":")[0] or domain.lower()
    if host.endswith(f".{above}"):
        return _by_name(host.removesuffix(f".{above}"))
    if not (ID_HEADER in found or PORT_HEADER in found) or not _is_shared(host, above):
        return None
    if not (ID_HEADER in found and PORT_HEADER in found):
        raise BadAddress("E2b-Sandbox-Id and E2b-Sandbox-Port belong together")
    return _checked(found[PORT_HEADER].decode("latin-1"), found[ID_HEADER].decode("latin-1"))


def _host_name(host: str) -> str:
    """Without its port, in lower case, without the root's dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().removesuffix(".")


def _is_shared(host: str, domain: str) -> bool:
    if host in ("localhost", domain) or host.startswith("sandbox."):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _by_name(label: str) -> Wanted:
    found = NAME.fullmatch(label)
    if found is None:
        raise BadAddress(f"{label!r} is not PORT-ID")
    return _checked(found[1], found[2])


def _checked(port: str, sandbox_id: str) -> Wanted:
    if not SANDBOX_ID.fullmatch(sandbox_id):
        raise BadAddress(f"{sandbox_id!r} is not a sandbox id")
    if not PORT.fullmatch(port) or not 0 < int(port) < 1 << 16:
        raise BadAddress(f"{port!r} is not a port")
    return Wanted(sandbox_id=sandbox_id, port=int(port))


def is_control(port: int, path: str) -> bool:
    """Whether this path of the guest agent is for its host alone.

    Only what is known is let through: how the agent reads an odd path does not matter then.
    """
    plain = unquote(path)
    return port == ENVD_PORT and plain not in ENVD_PATHS and ENVD_SERVICES.fullmatch(plain) is None


def to_sandbox(headers: Headers, *, client: str, scheme: str) -> Headers:
    """A request's headers without what is ours, and with where it came from."""
    left_out = {*HOP_HEADERS, *OUR_HEADERS, *FORWARDED, *_named_by_connection(headers)}
    passed = [
        (name, value)
        for name, value in ((name.lower(), value) for name, value in headers)
        if name not in left_out and not (name == b"authorization" and OUR_KEY.fullmatch(value))
    ]
    host = next((value for name, value in passed if name == b"host"), b"")
    values = (client.encode(), host, scheme.encode())
    return [*passed, *((name, value) for name, value in zip(FORWARDED, values, strict=True))]


def from_sandbox(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """A response's headers, without those of its hop."""
    found = list(headers)
    left_out = HOP_HEADERS | _named_by_connection(found)
    return [(name, value) for name, value in found if name.lower() not in left_out]


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    """What a `Connection` header says is of this hop; never what frames the body."""
    names = (
        word.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for word in value.split(b",")
    )
    return frozenset(names) - {b"host", b"content-length", b"authorization"}
