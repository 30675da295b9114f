"""How generations become one header: pure functions over one byte a page.

A `layer` is what one pause changed, a byte for each page: KEEP (the parent's page), DATA (a page of
the new build) or CLEAR (zero, whatever the parent had). docs/snapshot-format.md has the rule.
"""

from collections.abc import Iterator

from wrennd.snapshot.header import MAX_BUILDS, ZERO, Header, HeaderError

KEEP, DATA, CLEAR = 0, 1, 2
_KINDS = bytes((KEEP, DATA, CLEAR))
_KEPT = bytes((0xFF, 0, 0)).ljust(256, b"\0")


def compose(parent: Header, layer: bytes, build: str) -> Header:
    """The header of a generation: the parent's with `layer`, whose data are in `build`.

    Builds of which no page is left are not named any more. The time doesn't depend on how
    scattered the pages are: 10 ms for 4 GiB, see tests/bench/header.py.
    """
    if len(layer) != parent.pages:
        raise HeaderError(f"a layer of {len(layer)} pages fits no memory of {parent.pages}")
    if layer.translate(None, _KINDS):
        raise HeaderError("a layer says KEEP, DATA or CLEAR of a page, and nothing else")
    if build in parent.builds:
        raise HeaderError(f"build {build} is the parent's already")
    lower = _without_unused(parent, layer.translate(_KEPT))
    if DATA not in layer:
        return lower
    source = len(lower.builds) + 1
    if source > MAX_BUILDS:
        raise HeaderError(f"a header can't name more than {MAX_BUILDS} builds")
    own = layer.translate(bytes((0, source, 0)).ljust(256, b"\0"))
    return Header((*lower.builds, build), _either(lower.table, own))


def has_room(header: Header) -> bool:
    """Whether one more build fits behind it, whatever its layer."""
    return len(header.builds) < MAX_BUILDS


def collapsed(header: Header, build: str) -> Header:
    """The header after all of its pages were merged into `build`."""
    table = header.table.translate(bytes((ZERO,)).ljust(256, b"\1"))
    return Header((build,) if any(header.builds) else (), table)


def copies(header: Header) -> Iterator[tuple[int, int, int]]:
    """What a collapse copies: (start, stop, source) in pages, in offset order."""
    return (run for run in header.runs() if run[2] != ZERO)


def _without_unused(header: Header, kept: bytes) -> Header:
    """`header` where `kept` is 0xFF, zero elsewhere; builds renumbered without gaps."""
    table = _both(header.table, kept)
    used = [source for source in range(1, len(header.builds) + 1) if source in table]
    if len(used) < len(header.builds):
        numbers = bytearray(256)
        for number, source in enumerate(used, start=1):
            numbers[source] = number
        table = table.translate(numbers)
    return Header(tuple(header.builds[source - 1] for source in used), table)


# Whole tables as one number: the only operations of the standard library that work on a million
# bytes at once. A loop over the runs of a scattered diff takes ten times as long.


def _both(one: bytes, other: bytes) -> bytes:
    value = int.from_bytes(one, "little") & int.from_bytes(other, "little")
    return value.to_bytes(len(one), "little")


def _either(one: bytes, other: bytes) -> bytes:
    value = int.from_bytes(one, "little") | int.from_bytes(other, "little")
    return value.to_bytes(len(one), "little")
