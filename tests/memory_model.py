"""A guest's memory as the simplest thing that could be right: a list with one entry a page.

An entry says whose page it is: 0 for zero, else the number of the generation that wrote it. What
headers say must agree with it page by page.
"""

from hypothesis import strategies as st

from wrennd.snapshot.chain import CLEAR, DATA, KEEP

KINDS = st.sampled_from((KEEP, KEEP, KEEP, DATA, CLEAR))


def build_name(number: int) -> str:
    return f"{number:032x}"


def apply(memory: list[int], layer: bytes, number: int) -> list[int]:
    """The memory after a pause, page by page."""
    becomes = {DATA: number, CLEAR: 0}
    return [becomes.get(kind, page) for page, kind in zip(memory, layer, strict=True)]


def described(header) -> list[int]:
    """What a header says, page by page, looked up one after the other."""
    owners = [0, *(int(build, 16) for build in header.builds)]
    return [owners[header.table[page]] for page in range(header.pages)]


@st.composite
def layers(draw, pages):
    """Scattered pages, or a few runs, or nothing at all."""
    if draw(st.booleans()):
        return bytes(draw(st.lists(KINDS, min_size=pages, max_size=pages)))
    layer = bytearray(pages)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, pages - 1))
        stop = draw(st.integers(start + 1, pages))
        layer[start:stop] = bytes((draw(KINDS),)) * (stop - start)
    return bytes(layer)


@st.composite
def chains(draw, max_pages=120, max_layers=8):
    """The number of pages, and what each pause changed."""
    pages = draw(st.integers(1, max_pages))
    return pages, draw(st.lists(layers(pages), max_size=max_layers))
