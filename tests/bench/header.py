"""Measure headers: composing, encoding, decoding and looking up, 4 GiB and 10 generations.

    python tests/bench/header.py

Prints a row for each kind of chain: how much each pause changed, in runs of how many pages.
"""

import random
import statistics
import time
import tracemalloc
from collections.abc import Callable

from wrennd.snapshot.chain import DATA, compose
from wrennd.snapshot.header import Header

PAGES = 1 << 20
GENERATIONS = 10
ROUNDS = 5
CASES = ((0.01, 1), (0.03, 4), (0.05, 1), (0.05, 16), (0.10, 4))
LOOKUPS = 100_000
WINDOW = 64  # pages, the pager's
NEW = "f" * 32


def layer_of(chance: random.Random, share: float, run: int) -> bytes:
    layer = bytearray(PAGES)
    for _ in range(int(PAGES * share / run)):
        start = chance.randrange(PAGES - run)
        layer[start : start + run] = bytes((DATA,)) * run
    return bytes(layer)


def chain(chance: random.Random, share: float, run: int) -> Header:
    """A full generation and nine more over it."""
    header = compose(Header.zero(PAGES), bytes((DATA,)) * PAGES, f"{1:032x}")
    for number in range(2, GENERATIONS + 1):
        header = compose(header, layer_of(chance, share, run), f"{number:032x}")
    return header


def median_ms(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1000


def peak_mib(work: Callable[[], object]) -> float:
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / (1 << 20)


def row(chance: random.Random, share: float, run: int) -> str:
    header = chain(chance, share, run)
    layer = layer_of(chance, share, run)
    encoded = header.encode()
    table = header.table
    pages = [chance.randrange(PAGES - WINDOW) for _ in range(LOOKUPS)]

    def per_lookup_ns(work: Callable[[], object]) -> float:
        return median_ms(work) / LOOKUPS * 1e6

    cells = (
        f"{share:5.0%} {run:4} {sum(1 for _ in header.runs()):7}",
        f"{median_ms(lambda: compose(header, layer, NEW)):5.1f} ms",
        f"{median_ms(header.encode):4.1f} ms",
        f"{len(encoded):6}",
        f"{median_ms(lambda: Header.decode(encoded)):4.1f} ms",
        f"{median_ms(lambda: sum(1 for _ in header.runs())):5.0f} ms",
        f"{per_lookup_ns(lambda: [table[page] for page in pages]):3.0f} ns",
        f"{per_lookup_ns(lambda: [header.run_end(p, p + WINDOW) for p in pages]):4.0f} ns",
        f"{peak_mib(lambda: compose(header, layer, NEW)):4.1f} MiB",
    )
    return "  ".join(cells)


def main() -> None:
    chance = random.Random(1)
    print("share  run    runs  compose  encode   bytes  decode  all runs  lookup  window   peak")
    for share, run in CASES:
        print(row(chance, share, run))


if __name__ == "__main__":
    main()
