"""`wrenn setup`: what can't be asked for at once is refused before anything is done."""

import pytest

from wrennd.cli.setup import Storage, setup
from wrennd.core.errors import InvalidInput


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"force": True, "storage": Storage.REFLINK}, "--force and --storage are"),
        ({"force": True, "firecracker": "fc"}, "--force and --firecracker are"),
        ({"firecracker": "fc", "storage": Storage.REFLINK}, "--firecracker and --storage are"),
        ({"storage_size": 9}, "--storage-size"),
    ],
)
def test_steps_that_do_not_go_together(wanted, said, tmp_path):
    with pytest.raises(InvalidInput, match=said):
        setup(**wanted, data_dir=tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
