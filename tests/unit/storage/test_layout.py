import pytest

from wrennd.core.errors import InvalidInput
from wrennd.storage.layout import Layout


def test_a_data_directory_is_ours_alone_and_keeps_its_id(tmp_path):
    made = Layout.prepare(tmp_path / "data")
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert Layout.prepare(tmp_path / "data") == made
    assert Layout.find(tmp_path / "data") == made


def test_an_empty_directory_is_taken_also_a_fresh_filesystem(tmp_path):
    (tmp_path / "lost+found").mkdir()
    Layout.prepare(tmp_path)


def test_a_directory_with_other_things_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").touch()
    tmp_path.chmod(0o755)
    with pytest.raises(InvalidInput, match="not empty") as caught:
        Layout.prepare(tmp_path)
    assert caught.value.hint
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_looking_makes_nothing(tmp_path):
    assert Layout.find(tmp_path / "data") is None
    assert not (tmp_path / "data").exists()


def test_an_id_that_is_none_is_an_error(tmp_path):
    (tmp_path / "installation").write_text("../etc\n")
    with pytest.raises(ValueError, match="does not hold an installation id"):
        Layout.prepare(tmp_path)
