"""Sets of bytes as sorted lists of ranges [start, end) that don't touch. Pure."""

from collections.abc import Iterator, Sequence

Range = tuple[int, int]


def union(one: Sequence[Range], other: Sequence[Range]) -> list[Range]:
    """What is in either."""
    found: list[Range] = []
    for start, end in sorted([*one, *other]):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def without(ranges: Sequence[Range], removed: Sequence[Range]) -> list[Range]:
    """What is in `ranges` and not in `removed`."""
    found: list[Range] = []
    first = 0  # of `removed` that may still matter
    for start, end in ranges:
        while first < len(removed) and removed[first][1] <= start:
            first += 1
        at = first
        while at < len(removed) and removed[at][0] < end:
            if removed[at][0] > start:
                found.append((start, removed[at][0]))
            start = max(start, removed[at][1])
            at += 1
        if start < end:
            found.append((start, end))
    return found


def batches(ranges: Sequence[Range], *, max_bytes: int, max_ranges: int) -> Iterator[list[Range]]:
    """The same bytes, cut into lists of at most so many bytes and ranges."""
    batch: list[Range] = []
    room = max_bytes
    for start, end in ranges:
        while start < end:
            stop = min(end, start + room)
            batch.append((start, stop))
            room -= stop - start
            start = stop
            if room == 0 or len(batch) == max_ranges:
                yield batch
                batch, room = [], max_bytes
    if batch:
        yield batch


def length(ranges: Sequence[Range]) -> int:
    """How many bytes they are."""
    return sum(end - start for start, end in ranges)
