"""The suites again, with every byte through the host's own connections to an agent.

`Wire` and `exchange` are what `EnvdClient` and its RPCs are made of; test_client.py holds what it
makes of the replies.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from contract.envd import (
    test_endpoints,
    test_files,
    test_filesystem,
    test_freeze,
    test_init,
    test_processes,
    test_restore,
    test_signatures,
    test_users,
    test_watch,
)
from envd_agent import STREAM, Agent, Stream, adopted
from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded
from wrennd.host.envd_client import EnvdClient
from wrennd.host.envd_wire import Wire, dial, exchange

SUITES = (
    test_endpoints,
    test_files,
    test_filesystem,
    test_freeze,
    test_init,
    test_processes,
    test_restore,
    test_signatures,
    test_users,
    test_watch,
)


@dataclass(kw_only=True)
class ClientStream(Stream):
    """Over one of the host's connections."""

    wire: Wire

    def is_silent(self, seconds):
        self.wire.deadline = Deadline.after(seconds)
        try:
            self.rest()
        except DeadlineExceeded:
            return True
        return False


class ClientAgent(Agent):
    """Reaches the agent as the host does."""

    def _wire(self):
        peer = EnvdClient(self.address, self.port).peer
        deadline = Deadline.after(self.timeout_s)
        with self.entered():
            return Wire(dial(peer, deadline), peer, deadline)

    def _exchange(self, wire, method, target, headers, body):
        headers = {**self.headers, **(headers or {})}
        if isinstance(body, str):
            body = body.encode()
        return exchange(wire, method, target, headers, body)

    def http(self, method, target, body=None, headers=None):
        with self._exchange(self._wire(), method, target, headers, body) as response:
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, found, response.read()

    def stream(self, method, message, service="process.Process", **headers):
        body = json.dumps(message).encode()
        envelope = b"\0" + len(body).to_bytes(4, "big") + body
        sent = {"Content-Type": STREAM, **headers}
        with ExitStack() as held:
            wire = self._wire()
            response = held.enter_context(
                self._exchange(wire, "POST", f"/{service}/{method}", sent, envelope)
            )
            assert response.status == 200
            return ClientStream(response, held.pop_all(), wire=wire)


@pytest.fixture(scope="module")
def agent(agent):
    return ClientAgent(**vars(agent))


@pytest.fixture
def fresh_agent(fresh_agent):
    return ClientAgent(**vars(fresh_agent))


@pytest.fixture
def freezable(freezable):
    return ClientAgent(**vars(freezable))


@pytest.fixture
def restorable(restorable):
    return ClientAgent(**vars(restorable))


globals().update(adopted(SUITES))
