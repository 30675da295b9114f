"""A control plane for tests: the real application over a fake host agent, in this process."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from fakes.host_agent import FakeHostAgent, running, serving
from wrennd.control.__main__ import listening, serving_config
from wrennd.control.agent_client import AgentClient
from wrennd.control.app import create_app
from wrennd.control.services import Services
from wrennd.control.settings import Bounds, Settings
from wrennd.control.store import keys
from wrennd.control.store.database import Database
from wrennd.control.store.migrate import migrate
from wrennd.core.deadline import Deadline


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """One that serves. `api` has the admin key; `other` one of another project."""

    agent: FakeHostAgent
    settings: Settings
    services: Services
    database: Database
    url: str
    key: str
    other_key: str
    api: httpx.Client
    other: httpx.Client
    anonymous: httpx.Client

    @property
    def database_file(self) -> Path:
        return Path(self.settings.database.removeprefix("sqlite:///"))

    def create(self, **body: Any) -> str:
        answer = self.api.post("/v1/sandboxes", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def state(self, sandbox_id: str) -> str:
        return str(self.api.get(f"/v1/sandboxes/{sandbox_id}").json()["state"])

    def wait_until_ready(self) -> None:
        deadline = Deadline.after(60)
        while self.anonymous.get("/health").status_code != 200:
            deadline.check("the server's readiness")

    def socket(self, path: str, **headers: str) -> ClientConnection:
        """A WebSocket; with the admin key unless headers are given."""
        headers = headers or {"X-API-Key": self.key}
        return connect(
            self.url.replace("http:", "ws:") + path,
            additional_headers=headers,
            proxy=None,
            open_timeout=60,
        )


def make_settings(directory: Path, **changes: Any) -> Settings:
    settings = Settings(
        database=f"sqlite:///{directory / 'wrenn.db'}",
        agent=directory / "agent.sock",
        key_file=directory / "admin.key",
        reconcile_s=0.1,
        grace_s=0.0,
        bounds=Bounds(answer_s=60, body_s=60, auth_frame_s=60),
    )
    return replace(settings, **changes)


@contextlib.contextmanager
def control_plane(directory: Path, **changes: Any) -> Iterator[ControlPlane]:
    """Serve one, with its state in `directory`; `changes` are to its settings."""
    settings = make_settings(directory, **changes)
    agent = FakeHostAgent()
    with contextlib.ExitStack() as held:
        held.enter_context(serving(agent, settings.agent))
        yield held.enter_context(over(agent, settings))


@contextlib.contextmanager
def over(agent: FakeHostAgent, settings: Settings) -> Iterator[ControlPlane]:
    """Serve one over an agent that is served, or is not."""
    migrate(settings.database)
    database = Database(settings.database, answer_s=settings.bounds.database_s)
    key, other_key = keys.new_key(), keys.new_key()
    database.run_here(lambda c: keys.add(c, keys.DEFAULT_PROJECT, "admin", key))
    database.run_here(lambda c: keys.add(c, "other", "other", other_key))
    app = create_app(settings, database, AgentClient(settings.agent))
    with contextlib.ExitStack() as held:
        held.callback(database.close)
        bound = held.enter_context(listening("127.0.0.1:0"))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        held.enter_context(running(serving_config(app), bound))

        def client(headers: dict[str, str]) -> httpx.Client:
            made = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)
            return held.enter_context(made)

        yield ControlPlane(
            agent=agent,
            settings=settings,
            services=app.state.services,
            database=database,
            url=url,
            key=key,
            other_key=other_key,
            api=client({"X-API-Key": key}),
            other=client({"Authorization": f"Bearer {other_key}"}),
            anonymous=client({}),
        )
