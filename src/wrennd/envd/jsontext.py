"""JSON text to values and back, for bodies of a few kilobytes. Pure.

Decoding goes straight to the interpreter's scanner, without the `json` package around it.
"""

from __future__ import annotations

from wrennd.envd.interpreter import encode_basestring_ascii, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = Any

_WHITESPACE = " \t\n\r"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


class _Rules:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)


_scan = make_scanner(_Rules())  # type: ignore[arg-type]


def decode(data: bytes | bytearray) -> Json:
    """The value in UTF-8 JSON text. Errors: ValueError, for whatever is wrong with it."""
    text = data.decode()
    try:
        value, end = _scan(text, len(text) - len(text.lstrip(_WHITESPACE)))
    except StopIteration as stop:
        raise ValueError(f"no value at character {stop.value}") from None
    except SystemError:
        # Python 3.11 takes the class of its error from json.decoder, and finds that nobody has
        # imported it; newer ones import it themselves and raise a ValueError.
        raise ValueError("not well-formed") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text[end:].strip(_WHITESPACE):
        raise ValueError(f"something follows the value at character {end}")
    return value


def decode_object(data: bytes | bytearray) -> dict[str, Json]:
    """As `decode`, but only an object will do; no text at all is the empty object."""
    value = decode(data) if data else {}
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def encode(value: Json) -> str:
    """Compact ASCII JSON of dicts, lists, strings, ints, bools and None."""
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        inside = [f"{encode_basestring_ascii(key)}:{encode(item)}" for key, item in value.items()]
        return "{" + ",".join(inside) + "}"
    return "[" + ",".join([encode(item) for item in value]) + "]"
