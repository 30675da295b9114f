from pathlib import Path

import pytest

from wrennd.core.config import Config
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
