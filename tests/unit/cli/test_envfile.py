import pytest

from wrennd.cli import envfile
from wrennd.core.errors import InvalidInput


def test_lines_comments_blanks_and_literal_values():
    lines = ["# no", "", "  ", "A=1", 'B="quoted" = yes', "C=", "  # no\r\n", "D=x\r\n"]
    assert envfile.parse_lines(lines, "f") == {"A": "1", "B": '"quoted" = yes', "C": "", "D": "x"}


@pytest.mark.parametrize("line", ["novalue", "=x"])
def test_other_lines_are_named_by_number(line):
    with pytest.raises(InvalidInput, match="f, line 2"):
        envfile.parse_lines(["A=1", line], "f")


def test_arguments_override_the_file(tmp_path):
    (tmp_path / "env").write_text("A=file\nB=file\n")
    assert envfile.merged(tmp_path / "env", ["B=flag"]) == {"A": "file", "B": "flag"}


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "env").write_bytes(b"A=\xff\n")
    with pytest.raises(InvalidInput, match="can't be read"):
        envfile.merged(tmp_path / "env", [])
