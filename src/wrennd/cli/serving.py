"""The door from the command to the server of this machine: running it, ending it, finding it.

What it opens is imported when it is opened: `wrenn version` and `wrenn run` need none of it.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from wrennd.core.deadline import Deadline
from wrennd.core.errors import AlreadyExists, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wrennd.core.config import Config
    from wrennd.server.facts import Facts
    from wrennd.storage.layout import Layout

# Longer than a supervisor waits for its parts.
END_S = 160.0


def up(
    config: Config,
    *,
    listen: str,
    domain: str,
    database: str,
    is_insecure: bool,
    is_up: Callable[[str, str, str], None],
) -> None:
    """Run a server until a signal comes. `is_up` is told where it is, in which file there is a key
    for it, and that key if this start has made it, else ""."""
    from wrennd.server.serve import serve
    from wrennd.server.settings import settings
    from wrennd.storage.layout import Layout

    layout = Layout.prepare(config.data_dir)
    wanted = settings(
        layout, listen=listen, domain=domain, database=database, is_insecure=is_insecure
    )
    serve(config, layout, wanted, lambda found, key: is_up(found.url, found.key_file, key))


def down(config: Config) -> None:
    """End the server; its sandboxes are left as they are. Errors: NotFound when there is none."""
    from wrennd.linux.process import kill_and_wait

    found = running(config)
    if found is None:
        raise NotFound(f"no server of {config.data_dir} runs", hint="wrenn up starts one")
    kill_and_wait(found.pid, found.start_time, signal.SIGTERM, Deadline.after(END_S))


def install(config: Config, options: list[str]) -> tuple[Path, str, str]:
    """Make it a service of systemd, started now and at each boot: its unit, where it is and in
    which file there is a key for it ("" when it has ended again since).

    Errors: HostUnsuitable; AlreadyExists when a server runs that is not the service.
    """
    from wrennd.server import units

    found = running(config)
    if found is not None and found.pid != units.main_pid():
        raise AlreadyExists(
            f"a server of this data directory runs at {found.url}, process {found.pid}",
            hint="end it first: wrenn down",
        )
    environment = {
        "WRENN_VMM": config.vmm,
        "WRENN_OVERLAY": config.overlay,
        "WRENN_NETWORK_POOL": config.network_pool,
        "WRENN_LOG_LEVEL": config.log_level,
        "WRENN_LOG_FORM": config.log_form,
    }
    unit = units.install(config.data_dir, options, environment)
    found = running(config)
    return (unit, found.url, found.key_file) if found else (unit, "", "")


def uninstall(config: Config, *, purge: bool) -> list[str]:
    """Remove the service and what the server keeps; what was removed, a line each.

    purge: the data directory with all sandboxes, the system user and the key, too; the caller has
    destroyed the sandboxes. Nothing of it is an error when it is not there.
    """
    from wrennd.server import units
    from wrennd.server.purge import purged

    done = [f"the service {units.NAME}"] if units.uninstall(config.data_dir) else []
    if running(config) is not None:
        down(config)
        done.append("the running server")
    return done + (purged(config.data_dir) if purge else [])


def keep(config: Config, directory: Path) -> list[str]:
    """Copy what the server keeps beside the data directory, for a backup; what is missing."""
    from wrennd.server import keeping
    from wrennd.storage.layout import Layout

    layout = Layout.find(config.data_dir)
    return [] if layout is None else keeping.keep(layout, directory)


def put_back(layout: Layout, directory: Path, *, is_again: bool) -> list[str]:
    """Put what `keep` had copied where a server looks for it; what was left out.

    is_again: what is there may be of a restore that was broken off. Errors: AlreadyExists.
    """
    from wrennd.server import keeping

    if not is_again:
        keeping.check_is_free(layout)
    return keeping.put_back(layout, directory)


def running(config: Config) -> Facts | None:
    """The server of this data directory, if one runs."""
    from wrennd.server import facts

    return facts.running(config.data_dir)


def key_of(found: Facts) -> str:
    """Empty when it is not ours to read."""
    from wrennd.server.serve import key_of

    return key_of(found)
