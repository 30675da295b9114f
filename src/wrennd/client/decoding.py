"""JSON to frozen dataclasses, by their annotations. Pure.

What a newer server adds is passed over; what is missing is an error unless it has a default.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

from wrennd.core.errors import Error

T = TypeVar("T")


def unexpected(what: str) -> Error:
    """Another program answers there, or our server in another version."""
    return Error(f"the server's answer {what}", hint="is it Wrenn's, and of this version?")


def decode(kind: type[T], data: object) -> T:
    """Errors: Error."""
    try:
        return typing.cast(T, _value(kind, data))
    except (KeyError, TypeError, ValueError) as error:
        raise unexpected(f"is no {kind.__name__}: {error}") from error


def _value(kind: Any, data: Any) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object(kind, data)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # only `X | None`
        return None if data is None else _value(next(a for a in args if a is not type(None)), data)
    if origin is tuple:
        return tuple(_value(args[0], item) for item in _a(list, data))
    if origin in (dict, Mapping):
        return {str(name): _value(args[1], item) for name, item in _a(dict, data).items()}
    if kind is datetime:
        return datetime.fromisoformat(_a(str, data))
    if kind is float:
        return float(_a((int, float), data))
    return data if kind in (Any, object) else kind(_a((str, int, bool), data))


def _object(kind: type, data: Any) -> Any:
    hints = _hints(kind)
    given = _a(dict, data)
    return kind(
        **{name: _value(hint, given[name]) for name, hint in hints.items() if name in given}
    )


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _a(kind: Any, data: Any) -> Any:
    if not isinstance(data, kind):
        raise TypeError(f"{str(data)[:80]!r} has the wrong type")
    return data
