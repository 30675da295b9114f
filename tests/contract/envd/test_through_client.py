"""The suites again, with every byte through the host's own connections to an agent.

`Wire` and `exchange` are what `EnvdClient` and its RPCs are made of; test_client.py holds what it
makes of the replies.
"""

import json
from contextlib import ExitStack

import pytest

from contract.envd import test_files, test_filesystem, test_processes, test_watch
from envd_agent import STREAM, TIMEOUT_S, Agent, Stream, adopted, running
from wrennd.core.deadline import Deadline
from wrennd.host.envd_client import EnvdClient
from wrennd.host.envd_wire import Wire, dial, exchange

SUITES = (test_files, test_filesystem, test_processes, test_watch)


class ClientAgent(Agent):
    """Reaches the agent as the host does."""

    def _exchange(self, method, target, headers, body):
        peer = EnvdClient(self.address, self.port).peer
        deadline = Deadline.after(TIMEOUT_S)
        wire = Wire(dial(peer, deadline), peer, deadline)
        headers = {**self.headers, **(headers or {})}
        if isinstance(body, str):
            body = body.encode()
        return exchange(wire, method, target, headers, body)

    def http(self, method, target, body=None, headers=None):
        with self._exchange(method, target, headers, body) as response:
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, found, response.read()

    def stream(self, method, message, service="process.Process", **headers):
        body = json.dumps(message).encode()
        envelope = b"\0" + len(body).to_bytes(4, "big") + body
        sent = {"Content-Type": STREAM, **headers}
        with ExitStack() as held:
            response = held.enter_context(
                self._exchange("POST", f"/{service}/{method}", sent, envelope)
            )
            assert response.status == 200
            return Stream(response, held.pop_all())


@pytest.fixture(scope="module")
def agent():
    with running() as agent:
        yield ClientAgent(agent.address, agent.port, agent.pid)


globals().update(adopted(SUITES))
