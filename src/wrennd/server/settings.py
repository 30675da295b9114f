"""Where a server listens and where its things lie. Values only; nothing is made here."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from wrennd.core.config import DEFAULT_DATA_DIR
from wrennd.core.errors import InvalidInput
from wrennd.storage.layout import Layout

DEFAULT_LISTEN = "127.0.0.1:7070"
# Names below it lead to the ports of sandboxes. Browsers and curl resolve all of .localhost to
# this machine by themselves.
DEFAULT_DOMAIN = "sandbox.localhost"
STATE_ROOT = Path("/var/lib/wrenn-server")
ADMIN_KEY = Path("/etc/wrenn/admin.key")
USER = "wrenn"


@dataclass(frozen=True, kw_only=True)
class Address:
    """An IP address and a TCP port to listen on."""

    host: str
    port: int

    def __post_init__(self) -> None:
        ipaddress.ip_address(self.host)
        if not 0 < self.port < 1 << 16:
            raise ValueError(f"{self.port} is no port")

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Errors: InvalidInput."""
        host, _, port = text.rpartition(":")
        try:
            found = cls(host=host.removeprefix("[").removesuffix("]"), port=int(port))
        except ValueError as error:
            raise InvalidInput(
                f"{text!r} is not an address to listen on",
                hint=f"give an IP address and a port, as in {DEFAULT_LISTEN}",
            ) from error
        return found

    @property
    def is_local(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def url(self) -> str:
        """Where a program on this machine reaches it."""
        address = ipaddress.ip_address(self.host)
        if address.is_unspecified:
            address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
        host = f"[{address}]" if address.version == 6 else str(address)
        return f"http://{host}:{self.port}"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one server is told.

    state_dir: the control plane's own, where its user may write. key_file: where the first start
    puts a key, in a directory of that user. database: an SQLAlchemy URL. domain: of the names
    that lead to sandboxes' ports. is_insecure: keys may cross a network in the clear.
    """

    listen: Address
    domain: str
    database: str
    state_dir: Path
    key_file: Path
    is_insecure: bool = False

    def __post_init__(self) -> None:
        if not self.listen.is_local and not self.is_insecure:
            raise InvalidInput(
                f"{self.listen} can be reached from other machines, and keys would cross the "
                "network in the clear",
                hint="put a TLS proxy before 127.0.0.1, or add --insecure-http",
            )


def settings(
    layout: Layout,
    *,
    listen: str = DEFAULT_LISTEN,
    domain: str = DEFAULT_DOMAIN,
    database: str = "",
    is_insecure: bool = False,
) -> Settings:
    """With what was not asked for filled in. Only the default data directory's server has its key
    in /etc: others of the same machine would overwrite it. Errors: InvalidInput."""
    state_dir = STATE_ROOT / layout.installation
    is_default = layout.data_dir == DEFAULT_DATA_DIR
    return Settings(
        listen=Address.parse(listen),
        domain=domain,
        database=database or f"sqlite:///{state_dir / 'wrenn.db'}",
        state_dir=state_dir,
        key_file=ADMIN_KEY if is_default else state_dir / "admin.key",
        is_insecure=is_insecure,
    )


@dataclass(frozen=True)
class RunFiles:
    """What a running server has in its installation's run directory. Gone when it ends."""

    directory: Path

    @classmethod
    def of(cls, layout: Layout) -> "RunFiles":
        return cls(layout.run_dir / "server")

    @property
    def agent_socket(self) -> Path:
        return self.directory / "agent.sock"

    @property
    def facts(self) -> Path:
        """What a server says of itself: `server/facts.py`."""
        return self.directory / "server.json"
