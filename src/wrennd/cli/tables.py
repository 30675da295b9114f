"""Tables on stdout: for people as wide as their terminal, for programs with nothing cut off.

Rich is imported when there is a table to print: that takes a third of the time in which a command
without one is done.
"""

import sys
from collections.abc import Iterable, Sequence

WIDE = 500


def show(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(*(Column(name, no_wrap=True) for name in columns), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)
