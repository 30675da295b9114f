"""The Python SDK: `Client`, and `AsyncClient` with the same methods to be awaited.

    with Client() as wrenn:                       # WRENN_BASE_URL, WRENN_API_KEY, or config.toml
        box = wrenn.create(template="base")
        print(wrenn.exec(box.id, "uname", ["-a"]).stdout)
        wrenn.destroy(box.id)

What a method asks for is written once, in `calls` and `flows`; the two clients only carry it out.
Errors are those of `wrennd.core.errors`, by their code.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wrennd.client.awaiting import AsyncClient
    from wrennd.client.blocking import Client

__all__ = ["AsyncClient", "Client"]
_MODULES = {"AsyncClient": "awaiting", "Client": "blocking"}


def __getattr__(name: str) -> type:
    """Imported when asked for: values of this package are used where httpx is not wanted."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    found: type = getattr(module, name)
    return found
