"""Fields of a protobuf message in its JSON form, read with the types that they must have. Pure.

Both spellings of a name are understood (`watcherId`, `watcher_id`); null means absent; unknown
fields are nobody's business. Errors: RpcError invalid_argument, which names the field.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64

from wrennd.envd.connect import RpcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.jsontext import Json

    Message = dict[str, Json]

_URL_SAFE = str.maketrans("-_", "+/")
_U32 = 1 << 32


def _wrong(name: str, what: str) -> RpcError:
    return RpcError("invalid_argument", f"{name} must be {what}")


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join([part.capitalize() for part in rest])


def get(message: Message, name: str) -> Json:
    """The raw value of the field with this snake_case name, or None."""
    value = message.get(name)
    return message.get(_camel(name)) if value is None and "_" in name else value


def message(parent: Message, name: str) -> Message | None:
    value = get(parent, name)
    if value is not None and not isinstance(value, dict):
        raise _wrong(name, "an object")
    return value


def text(parent: Message, name: str) -> str | None:
    value = get(parent, name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong(name, "a string")
    if "\0" in value or not _is_utf8(value):
        raise _wrong(name, "text without NUL or surrogates")
    return value


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def boolean(parent: Message, name: str) -> bool | None:
    value = get(parent, name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, "true or false")
    return value


def u32(parent: Message, name: str) -> int | None:
    """Numbers may come as strings, as protobuf's JSON form allows."""
    value = get(parent, name)
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _U32:
        raise _wrong(name, "a number from 0 to 4294967295")
    return value


def blob(parent: Message, name: str) -> bytes | None:
    """Bytes travel as base64, either alphabet, padded or not."""
    value = get(parent, name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong(name, "base64")
    try:
        padded = value.translate(_URL_SAFE).rstrip("=").encode("ascii")
        return a2b_base64(padded + b"=" * (-len(padded) % 4), strict_mode=True)
    except (Base64Error, UnicodeEncodeError):
        raise _wrong(name, "base64") from None


def texts(parent: Message, name: str) -> list[str]:
    value = get(parent, name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(name, "a list of strings")
    return [text({name: item}, name) or "" for item in value]


def text_map(parent: Message, name: str) -> dict[str, str]:
    value = get(parent, name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(name, "an object of strings")
    return {key: text({name: item}, name) or "" for key, item in value.items()}
