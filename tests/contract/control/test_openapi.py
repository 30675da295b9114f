"""The API keeps to its own OpenAPI document, whatever it is sent.

Streams that have no end (server-sent events) are left out, and WebSockets are in no document. That
whatever fits the document is accepted is not asked for: it can't say which templates there are.
"""

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from control_plane import make_settings
from wrennd.control.agent_client import AgentClient
from wrennd.control.app import create_app, document
from wrennd.control.store.database import Database

EXAMPLES = 4
ENDLESS = "/v1/events/stream"


@pytest.fixture(scope="session")
def kept(server):
    """The document that the server shows, as it is tested."""
    return schemathesis.openapi.from_dict(server.anonymous.get("/openapi.json").json())


def paths():
    """Every route of the document, without a server."""
    settings = make_settings(Path("/nonexistent"))
    database = Database(settings.database)
    found = document(create_app(settings, database, AgentClient(settings.agent)))["paths"]
    database.close()
    return [(method.upper(), path) for path in found for method in found[path] if path != ENDLESS]


def cases():
    for method, path in paths():
        # Of the routes that are the same under both names, one is enough for every day.
        is_same = path.startswith("/v1/capsules/{sandbox_id}/")
        marks = [pytest.mark.long] if is_same else []
        yield pytest.param(method, path, GenerationMode.POSITIVE, marks=marks)
        if path.startswith("/v1"):  # the others take nothing that could be wrong
            yield pytest.param(method, path, GenerationMode.NEGATIVE, marks=marks)


@pytest.mark.parametrize(("method", "path", "mode"), list(cases()))
def test_the_document_is_kept_to(server, kept, method, path, mode):
    operation = kept[path][method]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case):
        case.call_and_validate(
            base_url=server.url,
            headers={"X-API-Key": server.key},
            excluded_checks=[positive_data_acceptance],
            timeout=60,
        )

    holds()
