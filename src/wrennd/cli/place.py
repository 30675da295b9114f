"""Where the commands' sandboxes are: on a server where there is one, else on this machine.

A server is one that WRENN_BASE_URL or config.toml names, or the one that runs on this machine for
the data directory. Both kinds of place implement `core/sandboxes.py`.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from wrennd.cli import serving, standalone
from wrennd.core.config import ClientConfig
from wrennd.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from wrennd.client.blocking import Client
    from wrennd.client.sandboxes import ServerSandboxes, ServerSnapshots
    from wrennd.core.config import Config
    from wrennd.core.sandboxes import Listed, ListedTemplate, Sandboxes, Snapshots

    Report = Callable[[str], None]


def server(config: Config) -> Client | None:
    """A client of the server that is meant, if there is one. Errors: InvalidInput without a key."""
    said = ClientConfig.from_environ()
    url, key = said.base_url, said.api_key
    if not url:
        found = serving.running(config)
        if found is None:
            return None
        url, key = found.url, key or serving.key_of(found)
    from wrennd.client.blocking import Client

    return Client(url, key)


def required_server(config: Config) -> Client:
    """For what only a server can do. Errors: Unavailable."""
    found = server(config)
    if found is None:
        raise Unavailable(f"no server of {config.data_dir} runs", hint="start it: wrenn up")
    return found


def required_sandboxes(config: Config) -> ServerSandboxes:
    """As `required_server`, with its sandboxes."""
    from wrennd.client.sandboxes import ServerSandboxes

    return ServerSandboxes(required_server(config))


def making(config: Config, report: Report) -> AbstractContextManager[Sandboxes]:
    """To make sandboxes."""
    return _served(config) or standalone.making(config, report)


def changing(config: Config) -> AbstractContextManager[Sandboxes]:
    """To change sandboxes that are there. Errors: NotFound when there can be none."""
    return _served(config) or standalone.changing(config)


def existing(config: Config) -> Sandboxes:
    """To use the sandboxes that are there. Errors: NotFound when there can be none."""
    return _server_sandboxes(config) or standalone.existing(config)


def listed(config: Config) -> list[Listed]:
    """All sandboxes; looking makes no data directory."""
    found = _server_sandboxes(config)
    return standalone.listed(config) if found is None else found.list()


@contextmanager
def snapshots(config: Config) -> Iterator[Snapshots]:
    """To change snapshots. Errors: NotFound when there can be none."""
    found = _server_snapshots(config)
    if found is not None:
        yield found
        return
    with standalone.changing(config) as sandboxes:
        yield standalone.snapshots(sandboxes)


def templates(config: Config) -> list[ListedTemplate]:
    """All snapshot templates; looking makes no data directory."""
    found = _server_snapshots(config)
    return standalone.templates(config) if found is None else found.list()


def _served(config: Config) -> AbstractContextManager[Sandboxes] | None:
    found = _server_sandboxes(config)
    return None if found is None else nullcontext(found)


def _server_sandboxes(config: Config) -> ServerSandboxes | None:
    client = server(config)
    if client is None:
        return None
    from wrennd.client.sandboxes import ServerSandboxes

    return ServerSandboxes(client)


def _server_snapshots(config: Config) -> ServerSnapshots | None:
    sandboxes = _server_sandboxes(config)
    if sandboxes is None:
        return None
    from wrennd.client.sandboxes import ServerSnapshots

    return ServerSnapshots(sandboxes)
