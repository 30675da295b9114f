"""Who may call, and for which user: the access token and the user's name.

Until the first /init sets a token everything is open. From then on every call carries it in
X-Access-Token, but for /health and the CORS preflight, and /init itself, which is let in by the
token that it replaces or repeats (a retry whose first reply was lost).
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64

from wrennd.envd.connect import RpcError
from wrennd.envd.interpreter import is_same_secret

TOKEN_HEADER = "x-access-token"


class Access:
    """The token in force. Compared in constant time, never printed."""

    def __init__(self) -> None:
        self._token = ""

    def allows(self, headers: dict[str, str]) -> bool:
        return self._matches(headers.get(TOKEN_HEADER, ""))

    def allows_init(self, headers: dict[str, str], new_token: str | None) -> bool:
        return self.allows(headers) or (new_token is not None and self._matches(new_token))

    def has_signed(self, text: str, expiration: str, signature: str) -> bool:
        """Whether somebody who knows the token made this signature of a file request.

        text: path, operation and user, joined by colons. Imports hashlib, which few guests need.
        """
        from binascii import b2a_base64
        from hashlib import sha256

        signed = f"{text}:{self._token}" + (f":{expiration}" if expiration else "")
        digest = sha256(signed.encode("utf-8", "surrogateescape")).digest()
        expected = b"v1_" + b2a_base64(digest, newline=False).rstrip(b"=")
        return is_same_secret(signature.encode("utf-8", "surrogateescape"), expected)

    def replace(self, token: str) -> bool:
        """Set the token; the empty one opens everything. Returns whether it is another one."""
        changed = token != self._token
        self._token = token
        return changed

    def _matches(self, token: str) -> bool:
        return not self._token or is_same_secret(token.encode(), self._token.encode())


def user_name(headers: dict[str, str]) -> str:
    """The user of a call from its Basic authorization; empty when none is named.

    Errors: RpcError unauthenticated when the header can't be read.
    """
    value = headers.get("authorization", "")
    scheme, _, encoded = value.partition(" ")
    if not value or scheme.lower() != "basic":
        return ""
    try:
        decoded = a2b_base64(encoded.strip().encode("ascii"), strict_mode=True).decode()
    except (Base64Error, ValueError):
        raise RpcError("unauthenticated", "the Basic authorization is not readable") from None
    return decoded.partition(":")[0]
