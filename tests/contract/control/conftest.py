"""One control plane for all tests here; each makes sandboxes of its own."""

import pytest

from control_plane import control_plane


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with control_plane(tmp_path_factory.mktemp("control")) as server:
        yield server
