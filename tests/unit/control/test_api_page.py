"""docs/api.md has every route, every error code of the API, and every bound as it is."""

import re
from pathlib import Path

import pytest

from control_plane import make_settings
from wrennd.control import http_errors
from wrennd.control.agent_client import AgentClient
from wrennd.control.app import create_app, document
from wrennd.control.settings import Bounds, Settings
from wrennd.control.states import RowState
from wrennd.control.store.database import Database
from wrennd.core.errors import Error

REPO = Path(__file__).resolve().parents[3]
PAGE = (REPO / "docs/api.md").read_text()
OPERATIONS = (REPO / "docs/operations.md").read_text()


def routes():
    settings = make_settings(Path("/nonexistent"))
    database = Database(settings.database)
    app = create_app(settings, database, AgentClient(settings.agent))
    found = document(app)["paths"]
    database.close()
    return sorted(
        (method.upper(), path)
        for path in found
        for method in found[path]
        # The page says of these that they are the same as under /v1/sandboxes.
        if not path.startswith("/v1/capsules/{sandbox_id}")
    )


def names_of(method, path):
    """How the page may name a route."""
    path = re.sub(r"\{(sandbox_id|key_id|host_id)\}", "{id}", path)
    path = path.replace("{process}", "{pid or tag}")
    short = path.replace("/v1/sandboxes/{id}", "...")
    return [f"`{method} {path}", f"`{method} {short}", f", `{short}`"]


@pytest.mark.parametrize(("method", "path"), routes())
def test_every_route_is_described(method, path):
    assert any(name in PAGE for name in names_of(method, path))


@pytest.mark.parametrize("code", sorted({*Error.by_code, *http_errors.CODES.values()}))
def test_every_error_code_is_described(code):
    assert f"`{code}`" in PAGE


@pytest.mark.parametrize("code", sorted(set(http_errors.OLDER_CODES.values())))
def test_every_older_code_is_described(code):
    assert f"`{code}`" in PAGE


@pytest.mark.parametrize("state", list(RowState))
def test_every_state_is_described(state):
    assert f"`{state}`" in PAGE


def test_the_bounds():
    bounds = Bounds()
    assert f"create and resume {bounds.answer_s:g} s" in PAGE
    assert f"snapshot {bounds.snapshot_s:g} s" in PAGE
    assert f"waits up to {bounds.ready_s:g} s" in PAGE


@pytest.mark.parametrize("option", ["database", "agent", "listen", "domain", "key-file"])
def test_every_option_is_described(option):
    default = getattr(Settings, option.replace("-", "_"))
    assert f"| `--{option}` | " in OPERATIONS
    assert option == "database" or f"| `--{option}` | `{default}` |" in OPERATIONS
