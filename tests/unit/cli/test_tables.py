"""Tables as they are printed."""

from wrennd.cli.tables import lines


def test_columns_are_as_wide_as_what_is_in_them():
    assert lines(("ID", "STATE", "AGE"), [("a" * 20, "running", "3 s"), ("b", "error", "")]) == [
        "ID                    STATE    AGE",
        "aaaaaaaaaaaaaaaaaaaa  running  3 s",
        "b                     error",
    ]


def test_nothing_is_cut_off():
    (_, row) = lines(("ID", "WHY"), [("x" * 300, "y" * 300)])
    assert row == "x" * 300 + "  " + "y" * 300


def test_a_remark_makes_no_column_wider():
    rows = [("one", "2", "3"), ("bad", "its header is not what it should be")]
    assert lines(("NAME", "VCPUS", "AGE"), rows) == [
        "NAME  VCPUS  AGE",
        "one   2      3",
        "bad   its header is not what it should be",
    ]


def test_no_rows_are_the_head_alone():
    assert lines(("A", "B"), []) == ["A  B"]


def test_text_of_strangers_is_on_one_line_and_harmless():
    (_, row) = lines(("A", "B"), [("[red]a\nb", "\x1b[31mc")])
    assert row == "[red]a b  \\x1b[31mc"
