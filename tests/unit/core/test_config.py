from pathlib import Path

import pytest

from wrennd.core.config import ClientConfig, Config
from wrennd.core.errors import InvalidInput


def test_defaults():
    assert Config.from_environ({}) == Config(data_dir=Path("/var/lib/wrenn"))


def test_environment_is_read():
    config = Config.from_environ({"WRENN_DATA_DIR": "/srv/w", "WRENN_OVERLAY": "copy"})
    assert (config.data_dir, config.overlay) == (Path("/srv/w"), "copy")


@pytest.mark.parametrize(
    "environ",
    [
        {"WRENN_DATA_DIR": "relative"},
        {"WRENN_VMM": "xen"},
        {"WRENN_OVERLAY": "zfs"},
        {"WRENN_LOG_LEVEL": "loud"},
        {"WRENN_LOG_FORM": "xml"},
    ],
)
def test_nonsense_is_refused_with_a_hint(environ):
    with pytest.raises(InvalidInput) as caught:
        Config.from_environ(environ)
    assert caught.value.hint


def write_client_config(home, text):
    (home / ".config/wrenn").mkdir(parents=True)
    (home / ".config/wrenn/config.toml").write_text(text)


def test_a_client_s_environment_comes_before_its_file(tmp_path):
    write_client_config(tmp_path, 'base_url = "http://a"\napi_key = "e2b_file"\n')
    env = {"HOME": str(tmp_path), "WRENN_BASE_URL": "http://b/"}
    found = ClientConfig.from_environ(env)
    assert (found.base_url, found.api_key) == ("http://b", "e2b_file")
    assert ClientConfig.from_environ({}) == ClientConfig()


@pytest.mark.parametrize("text", ["no toml", 'key = "x"\n', "api_key = 3\n"])
def test_a_client_s_file_that_says_nothing_to_us_is_refused(tmp_path, text):
    write_client_config(tmp_path, text)
    with pytest.raises(InvalidInput, match=r"config\.toml"):
        ClientConfig.from_environ({"HOME": str(tmp_path)})
