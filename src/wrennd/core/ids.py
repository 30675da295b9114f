"""Ids of sandboxes and installations, and the names on the host that are made of them."""

import re
import secrets
import string

from wrennd.core.errors import InvalidInput

ALPHABET = string.ascii_lowercase + string.digits
SANDBOX_ID = re.compile(r"[a-z0-9]{20}")
INSTALLATION_ID = re.compile(r"[a-z0-9]{6}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def new_sandbox_id() -> str:
    """20 of [a-z0-9]: sandbox ids go into host names."""
    return _random(20)


def new_installation_id() -> str:
    """6 of [a-z0-9]: short, since it goes into link names (15 bytes at most)."""
    return _random(6)


def check_sandbox_id(text: str) -> str:
    if not SANDBOX_ID.fullmatch(text):
        raise InvalidInput(f"{text!r} is not a sandbox id", hint="an id is 20 of a-z and 0-9")
    return text


def check_name(text: str, what: str) -> str:
    """A name that a user gives to an image or template; safe in a path."""
    if not NAME.fullmatch(text):
        raise InvalidInput(
            f"{text!r} is not a valid {what} name",
            hint="use 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit",
        )
    return text
