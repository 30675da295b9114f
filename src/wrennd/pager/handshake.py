"""The VMM's one message: where its guest's memory lies. From an untrusted peer; `decode` is pure.

Firecracker's, with one key of ours (`wp_async`); docs/memory.md says what is refused.
"""

import json
from dataclasses import dataclass
from itertools import pairwise

from wrennd.pager.abi import PAGE_SHIFT, PAGE_SIZE

MAX_BYTES = 64 << 10
MAX_REGIONS = 64
_USER_SPACE_END = 1 << 47


class Refused(ValueError):
    """The message, or what came with it, is not what a VMM of this snapshot sends."""


@dataclass(frozen=True)
class Region:
    """Guest memory in the VMM: `address` .. `end` hold the pages from `first` on."""

    address: int
    first: int
    pages: int

    @property
    def size(self) -> int:
        return self.pages << PAGE_SHIFT

    @property
    def end(self) -> int:
        return self.address + self.size

    @property
    def shift(self) -> int:
        """What a page's offset in the guest's memory is added to for its address in the VMM."""
        return self.address - (self.first << PAGE_SHIFT)


@dataclass(frozen=True)
class Handshake:
    """regions: by page, without gaps. wp_async: pages are to be installed write-protected."""

    regions: tuple[Region, ...]
    wp_async: bool


def decode(data: bytes, pages: int) -> Handshake | None:
    """The message so far: None when more of it has to come. `pages`: how many the header has.

    Errors: Refused.
    """
    if len(data) > MAX_BYTES:
        raise Refused(f"its message is longer than {MAX_BYTES} bytes")
    if not data.startswith(b"["):
        raise Refused("its message is no JSON array")
    try:
        found = json.loads(data.decode("ascii"))
    except json.JSONDecodeError:
        return None  # cut off, or garbage: whoever waits for the rest has a deadline
    except (ValueError, RecursionError) as error:
        raise Refused(f"its message is no JSON: {error}") from None
    return _handshake(found, pages)


def _handshake(found: object, pages: int) -> Handshake:
    if not isinstance(found, list) or not 0 < len(found) <= MAX_REGIONS:
        raise Refused(f"it does not name 1 to {MAX_REGIONS} regions")
    regions = tuple(sorted((_region(item) for item in found), key=lambda region: region.first))
    at = 0
    for region in regions:
        if region.first != at:
            raise Refused(f"page {at} of the guest is in no region, or in two")
        at += region.pages
    if at != pages:
        raise Refused(f"its regions have {at} pages, the snapshot has {pages}")
    by_address = sorted(regions, key=lambda region: region.address)
    for one, other in pairwise(by_address):
        if one.end > other.address:
            raise Refused("its regions overlap")
    return Handshake(regions, _wp_async(found))


def _wp_async(items: list[dict[str, object]]) -> bool:
    wanted = [item.get("wp_async", False) for item in items]
    if all(value is True for value in wanted):
        return True
    if any(value is not False for value in wanted):
        raise Refused("wp_async is not the same boolean for all regions")
    return False


def _region(item: object) -> Region:
    if not isinstance(item, dict):
        raise Refused("a region is no JSON object")
    if _page_size(item) != PAGE_SIZE:
        raise Refused(f"pages of {_page_size(item)} bytes can't be served from this snapshot")
    address, size, offset = (
        _aligned(item, key) for key in ("base_host_virt_addr", "size", "offset")
    )
    if size == 0 or address == 0 or address + size > _USER_SPACE_END:
        raise Refused(f"a region of {size} bytes at {address:#x} can't be")
    return Region(address=address, first=offset >> PAGE_SHIFT, pages=size >> PAGE_SHIFT)


def _page_size(item: dict[str, object]) -> object:
    """`page_size` since Firecracker 1.12; before it `page_size_kib`, which holds bytes, too.

    Its documents say KiB, so somebody may send that: below 4096 it can mean nothing else.
    """
    found = item.get("page_size", item.get("page_size_kib", PAGE_SIZE))
    if type(found) is int and 0 < found < PAGE_SIZE:
        return found << 10
    return found


def _aligned(item: dict[str, object], key: str) -> int:
    value = item.get(key)
    # bool is an int to isinstance.
    if type(value) is not int or not 0 <= value < 1 << 64 or value % PAGE_SIZE:
        raise Refused(f"{key} is no multiple of {PAGE_SIZE}: {str(value)[:40]}")
    return value
