"""Typed readers over JSON: a table of fields becomes a function that reads one kind of object.

The error texts are those of serde's derived code, which Firecracker's clients and tests know:
unknown field, missing field, unknown variant, invalid type, invalid value.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from wrennd.qemu_vmm.json_reader import JsonError, Reader, describe_number

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
Kind = Callable[[Reader], T]

_DIGITS = b"-0123456789"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One key of an object. Keyword argument of the maker: the key with `-` as `_`."""

    key: str
    kind: Kind[Any]
    required: bool = False
    default: Any = None

    @property
    def argument(self) -> str:
        return self.key.replace("-", "_")


def string(reader: Reader) -> str:
    if reader.peek_value() != ord('"'):
        reader.wrong_type("a string")
    return reader.string()


def path(reader: Reader) -> str:
    if reader.peek_value() != ord('"'):
        reader.wrong_type("path string")
    return reader.string()


def boolean(reader: Reader) -> bool:
    byte = reader.peek_value()
    if byte not in b"tf":
        reader.wrong_type("a boolean")
    return bool(reader.word(byte))


def unsigned(name: str) -> Kind[int]:
    """An integer of the Rust type `name` (u8, u16, u32, u64, usize)."""
    bits = 64 if name == "usize" else int(name[1:])

    def read(reader: Reader) -> int:
        if reader.peek_value() not in _DIGITS:
            reader.wrong_type(name)
        value = reader.number()
        if isinstance(value, float):
            raise reader.error(f"invalid type: {describe_number(value)}, expected {name}")
        if not 0 <= value < 1 << bits:
            raise reader.error(f"invalid value: {describe_number(value)}, expected {name}")
        return value

    return read


def optional(kind: Kind[T]) -> Kind[T | None]:
    """`null` or the kind."""

    def read(reader: Reader) -> T | None:
        if reader.peek_value() == ord("n"):
            reader.word(ord("n"))
            return None
        return kind(reader)

    return read


def choice(values: type[E]) -> Kind[E]:
    """One of these names, or, as serde takes it too, an object of one key that is null."""

    def name(reader: Reader) -> E:
        if reader.peek_value() != ord('"'):
            reader.wrong_type("variant identifier")
        text = reader.string()
        try:
            return values(text)
        except ValueError:
            raise reader.error(f"unknown variant `{text}`, {one_of(list(values))}") from None

    def read(reader: Reader) -> E:
        byte = reader.peek_value()
        if byte == ord('"'):
            return name(reader)
        if byte != ord("{"):
            raise reader.peek_error("expected value")
        reader.enter()
        value = name(reader)
        reader.colon()
        if reader.peek_value() != ord("n"):
            reader.wrong_type("unit")
        reader.word(ord("n"))
        if reader.peek() not in (None, ord("}")):
            raise reader.error("expected value")
        reader.leave_object()
        return value

    return read


def checked(kind: Kind[T], check: Callable[[T], str]) -> Kind[T]:
    """The kind, and then what `check` says is wrong with the value (empty: nothing)."""

    def read(reader: Reader) -> T:
        value = kind(reader)
        if problem := check(value):
            raise JsonError(problem)  # placed by the object that it stands in
        return value

    return read


def listed(kind: Kind[T]) -> Kind[list[T]]:
    def read(reader: Reader) -> list[T]:
        if reader.peek_value() != ord("["):
            reader.wrong_type("a sequence")
        reader.enter()
        items: list[T] = []
        try:
            while reader.next_item(first=not items):
                items.append(kind(reader))
        except JsonError as error:
            raise _close(reader, reader.leave_list, error) from None
        reader.leave_list()
        return items

    return read


def anything(reader: Reader) -> bool:
    """Any value, not kept: whether it is something other than null."""
    is_null = reader.peek_value() == ord("n")
    reader.skip()
    return not is_null


def struct(
    name: str, make: Callable[..., T], fields: tuple[Field, ...], *, ignores_unknown: bool = False
) -> Kind[T]:
    """An object with these keys, each at most once, handed to `make` as keyword arguments."""
    by_key = {field.key: field for field in fields}

    def read(reader: Reader) -> T:
        if reader.peek_value() != ord("{"):
            reader.wrong_type(f"struct {name}")
        reader.enter()
        try:
            values = _read_fields(reader, by_key, ignores_unknown)
        except JsonError as error:
            raise _close(reader, reader.leave_object, error) from None
        reader.leave_object()
        return make(**values)

    return read


def _read_fields(
    reader: Reader, by_key: dict[str, Field], ignores_unknown: bool
) -> dict[str, object]:
    values: dict[str, object] = {}
    first = True
    while (key := reader.next_key(first=first)) is not None:
        first = False
        field = by_key.get(key)
        if field is None and not ignores_unknown:
            raise JsonError(f"unknown field `{key}`, {one_of(list(by_key))}")
        if field is not None and field.argument in values:
            raise JsonError(f"duplicate field `{key}`")
        reader.colon()
        if field is None:
            reader.skip()
        else:
            values[field.argument] = field.kind(reader)
    for field in by_key.values():
        if field.required and field.argument not in values:
            raise JsonError(f"missing field `{field.key}`")
        values.setdefault(field.argument, field.default)
    return values


def _close(reader: Reader, leave: Callable[[], None], error: JsonError) -> JsonError:
    """Place `error` where serde_json does: after it tried to read the closing bracket."""
    if error.is_placed:
        return error
    with contextlib.suppress(JsonError):
        leave()
    return reader.place(error)


def one_of(names: list[str] | list[E]) -> str:
    """`expected ...` as serde lists names."""
    quoted = [f"`{name}`" for name in names]
    if not quoted:
        return "there are no fields"
    if len(quoted) == 1:
        return f"expected {quoted[0]}"
    if len(quoted) == 2:
        return f"expected {quoted[0]} or {quoted[1]}"
    return f"expected one of {', '.join(quoted)}"


def decode(kind: Kind[T], data: bytes) -> T:
    """Read a whole document. Errors: JsonError with line and column."""
    reader = Reader(data)
    try:
        value = kind(reader)
    except JsonError as error:
        raise reader.place(error) from None
    reader.end()
    return value
