"""Tables on stdout: a line for each row, however wide the terminal is. Nothing is cut off: ids are
there to be copied, and programs read the same."""

from collections.abc import Iterable, Sequence

from wrennd.core.text import printable

GAP = "  "


def show(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    for line in lines(columns, rows):
        print(line)


def lines(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A row may have fewer cells than there are columns: its last one then is a remark, which makes
    no column wider."""
    table = [tuple(columns), *(tuple(_cell(text) for text in row) for row in rows)]
    widths = [max(_lengths(table, column)) for column in range(len(columns))]
    return [
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in table
    ]


def _lengths(table: list[tuple[str, ...]], column: int) -> Iterable[int]:
    for row in table:
        if column < len(row) - (len(row) < len(table[0])):
            yield len(row[column])


def _cell(text: str) -> str:
    return printable(text).replace("\n", " ")
