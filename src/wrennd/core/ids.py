"""Ids of sandboxes and installations, and the names on the host that are made of them."""

import re
import secrets
import string
from collections.abc import Iterable

from wrennd.core.errors import InvalidInput, NotFound

ALPHABET = string.ascii_lowercase + string.digits
SANDBOX_ID = re.compile(r"[a-z0-9]{20}")
INSTALLATION_ID = re.compile(r"[a-z0-9]{6}")
MIN_PREFIX = 4
ID_PREFIX = re.compile(rf"[a-z0-9]{{{MIN_PREFIX},20}}")
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


def match_sandbox_id(text: str, ids: Iterable[str]) -> str:
    """The one of `ids` that `text` is, or that alone begins with it.

    Errors: InvalidInput for what can't be an id's beginning, or begins several; NotFound.
    """
    if not ID_PREFIX.fullmatch(text):
        raise InvalidInput(
            f"{text!r} is not a sandbox id",
            hint=f"an id is 20 of a-z and 0-9; its first {MIN_PREFIX} are enough if no other "
            "begins with them",
        )
    found = sorted(known for known in ids if known.startswith(text))
    if not found:
        raise NotFound(f"there is no sandbox {text}", hint="wrenn ls --all lists those that are")
    if len(found) > 1:
        raise InvalidInput(
            f"{text} could be any of {len(found)} sandboxes: {', '.join(found[:4])}"
            + (", ..." if len(found) > 4 else ""),
            hint="give more of the id",
        )
    return found[0]


def check_name(text: str, what: str) -> str:
    """A name that a user gives to an image or template; safe in a path."""
    if not NAME.fullmatch(text):
        raise InvalidInput(
            f"{text!r} is not a valid {what} name",
            hint="use 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit",
        )
    return text
