"""The way to a program that lies behind a directory of root's."""

from pathlib import Path

from wrennd.linux.service import way


def test_a_closed_directory_is_hidden_and_what_is_needed_in_it_is_shown(tmp_path):
    tmp_path.chmod(0o755)
    closed = tmp_path / "closed"
    needed, also = closed / "deep" / "needed", closed / "also"
    for path in (needed, also):
        path.mkdir(parents=True)
    closed.chmod(0o700)
    hide, show = way([needed, also])
    # What lies above the tests' own directory may be closed, too.
    assert len(hide) == 1
    assert str(closed).startswith(hide[0])
    assert show == [str(needed), str(also)]


def test_an_open_way_is_left_alone():
    assert way([Path("/usr/lib")]) == ([], [])
