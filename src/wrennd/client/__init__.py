"""The Python SDK: `Client`, and `AsyncClient` with the same methods to be awaited.

    with Client() as wrenn:                       # WRENN_BASE_URL, WRENN_API_KEY, or config.toml
        box = wrenn.create(template="base")
        print(wrenn.exec(box.id, "uname", ["-a"]).stdout)
        wrenn.destroy(box.id)

What a method asks for is written once, in `calls` and `flows`; the two clients only carry it out.
Errors are those of `wrennd.core.errors`, by their code.
"""

from wrennd.client.awaiting import AsyncClient
from wrennd.client.blocking import Client
from wrennd.client.values import (
    Event,
    ExecResult,
    FileEntry,
    Host,
    Key,
    Page,
    Process,
    Sandbox,
    Template,
)

__all__ = [
    "AsyncClient",
    "Client",
    "Event",
    "ExecResult",
    "FileEntry",
    "Host",
    "Key",
    "Page",
    "Process",
    "Sandbox",
    "Template",
]
