"""One control plane for all tests here, over either database; each makes sandboxes of its own."""

import pytest

import postgresql
from control_plane import control_plane


@pytest.fixture(
    scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)]
)
def server(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("control")
    if request.param == "sqlite":
        with control_plane(directory) as server:
            yield server
        return
    with (
        postgresql.serving() as database,
        control_plane(directory, database=database.new_database("wrenn")) as server,
    ):
        yield server
