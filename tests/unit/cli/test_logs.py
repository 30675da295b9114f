"""`wrenn logs`: a console, whoever reads it."""

from wrennd.cli.logs import EMPTY, Piece, show
from wrennd.core.errors import NotFound


def reader(*pieces):
    left = list(pieces)

    def read(offset):
        if not left:
            raise NotFound("it ended")
        return left.pop(0)

    return read


def test_an_empty_one_is_told_to_be_so(capsys):
    show(reader(Piece(b"", 0, "1")), goes_on=False)
    assert capsys.readouterr() == ("", f"{EMPTY}\n")


def test_it_is_shown_printable_until_another_console_begins(capsys):
    show(
        reader(Piece(b"a\x1b[2J\r\n", 7, "1"), Piece(b"b", 8, "1"), Piece(b"c", 1, "2")),
        goes_on=True,
    )
    assert capsys.readouterr() == ("a?[2J\nb", "")


def test_its_end_is_no_failure(capsys):
    show(reader(Piece(b"last", 4, "1")), goes_on=True)
    assert capsys.readouterr() == ("last", "")
