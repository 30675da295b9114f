import pytest

from wrennd.core.config import DEFAULT_DATA_DIR
from wrennd.core.errors import InvalidInput
from wrennd.server.settings import ADMIN_KEY, Address, settings
from wrennd.storage.layout import Layout


def layout(data_dir):
    return Layout(data_dir=data_dir, installation="abc123")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:7070", "http://127.0.0.1:7070"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::1]:7070", "http://[::1]:7070"),
        ("[::]:7070", "http://[::1]:7070"),
    ],
)
def test_an_address_says_where_it_is_reached(text, url):
    assert Address.parse(text).url == url
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "7070", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "host:80"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InvalidInput, match="not an address"):
        Address.parse(text)


def test_others_are_let_in_only_when_asked_for(tmp_path):
    with pytest.raises(InvalidInput, match="other machines"):
        settings(layout(tmp_path), listen="0.0.0.0:7070")
    assert not settings(layout(tmp_path), listen="0.0.0.0:7070", is_insecure=True).listen.is_local


def test_only_the_default_data_directory_has_its_key_in_etc(tmp_path):
    assert settings(layout(DEFAULT_DATA_DIR)).key_file == ADMIN_KEY
    other = settings(layout(tmp_path))
    assert other.key_file.parent == other.state_dir
    assert "abc123" in other.key_file.parts
