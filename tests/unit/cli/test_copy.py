import pytest

from wrennd.cli.run import Copy
from wrennd.core.errors import InvalidInput


def test_the_last_colon_divides(tmp_path):
    odd = tmp_path / "a:b"
    odd.touch()
    assert Copy.parse(f"{odd}:/dst") == Copy(source=odd, destination="/dst")


@pytest.mark.parametrize("text", ["", ":", "/etc/hosts", "/etc/hosts:", ":/dst", "/nonexistent:/d"])
def test_what_is_no_copy_is_refused(text):
    with pytest.raises(InvalidInput):
        Copy.parse(text)
