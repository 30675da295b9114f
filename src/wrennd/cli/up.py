"""`wrenn up` and `wrenn down`: the server of this machine."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from wrennd.cli import place, serving, standalone
from wrennd.cli.main import explain
from wrennd.cli.options import DataDir, configured
from wrennd.cli.progress import Progress
from wrennd.core.config import Config
from wrennd.core.errors import Error, InvalidInput, NotFound
from wrennd.core.sandboxes import Listed
from wrennd.core.states import State
from wrennd.core.timings import Timings

UP_HELP = "Run the server of this machine, until Ctrl-C; sandboxes live on."
UNINSTALL_HELP = "Remove the server's service; with --purge all that it has, too."
DOWN_HELP = "End the server; sandboxes live on, unless you say otherwise."


def up(
    listen: Annotated[
        str, typer.Option(metavar="IP:PORT", help="Where the API and the page are.")
    ] = "127.0.0.1:7070",
    domain: Annotated[
        str,
        typer.Option(metavar="NAME", help="PORT-ID.NAME leads to a port of a sandbox."),
    ] = "sandbox.localhost",
    database: Annotated[
        str, typer.Option(metavar="URL", help="SQLAlchemy's; default: a SQLite file.")
    ] = "",
    insecure_http: Annotated[
        bool,
        typer.Option("--insecure-http", help="Let other machines in; keys cross in the clear."),
    ] = False,
    install: Annotated[
        bool, typer.Option("--install", help="Make it a service of systemd, and start that.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    config = configured(data_dir, log_level="info")
    if install:
        options = ["--listen", listen, "--domain", domain]
        options += ["--database", database] if database else []
        options += ["--insecure-http"] if insecure_http else []
        _tell_installed(*serving.install(config, options))
        return
    serving.up(
        config,
        listen=listen,
        domain=domain,
        database=database,
        is_insecure=insecure_http,
        is_up=_tell,
    )


def uninstall(
    purge: Annotated[
        bool,
        typer.Option("--purge", help="Sandboxes, images, database, key and system user, too."),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Without --purge sandboxes and all data stay, and a later server goes on with them."""
    config = configured(data_dir)
    if purge:
        _kill_served(config)
    done = serving.uninstall(config, purge=False)
    if purge:
        _kill_all(config)
        done += serving.uninstall(config, purge=True)
    print("\n".join(f"removed: {each}" for each in done) or "there was nothing to remove")


def down(
    pause: Annotated[bool, typer.Option("--pause", help="Pause what runs.")] = False,
    kill: Annotated[bool, typer.Option("--kill", help="Destroy all sandboxes.")] = False,
    data_dir: DataDir = None,
) -> None:
    if pause and kill:
        raise InvalidInput("--pause and --kill exclude each other")
    config = configured(data_dir)
    if kill:
        _kill_served(config)
    try:
        serving.down(config)
    except NotFound:
        if not (pause or kill):
            raise
        print("wrenn: no server ran", file=sys.stderr)
    if pause:
        _pause_all(config)
    if kill:
        _kill_all(config)


def _pause_all(config: Config) -> None:
    def pause(box: Listed) -> None:
        with standalone.changing(config) as sandboxes:
            sandboxes.pause(box.id, Timings())

    _each(config, lambda box: box.state is State.RUNNING, pause, "paused")


def _kill_served(config: Config) -> None:
    """By the server, as long as it runs, so that it knows what became of them. What is left (it
    may not answer, or they may be other projects') is `_kill_all`'s."""
    if serving.running(config) is None:
        return
    try:
        sandboxes = place.existing(config)
        for box in sandboxes.list():
            sandboxes.kill(box.id)
    except Error as error:
        explain(error)


def _kill_all(config: Config) -> None:
    def kill(box: Listed) -> None:
        standalone.existing(config).kill(box.id)

    _each(config, lambda box: True, kill, "destroyed")


def _each(
    config: Config, is_meant: Callable[[Listed], bool], act: Callable[[Listed], None], done: str
) -> None:
    """To every sandbox that is kept; a wrenn run's is its own. The server has ended by now, so
    nobody else is at work on them. All are tried. Errors: the first that came."""
    progress = Progress()
    errors = []
    for box in standalone.listed(config):
        if not (box.is_kept and is_meant(box)):
            continue
        try:
            act(box)
        except Error as error:
            errors.append(error)
        else:
            progress(f"{box.id} {done}")
    if errors:
        raise errors[0]


def _tell_installed(unit: Path, url: str, key_file: str) -> None:
    if url:
        _tell_where(url, f"in {key_file}")
    print(f"It is a service now, {unit}: systemctl status wrenn, journalctl -u wrenn")


def _tell(url: str, key_file: str, key: str) -> None:
    is_shown = bool(key) and _is_seen()
    _tell_where(url, f"{key}, also in {key_file}" if is_shown else f"in {key_file}")
    end = "Ctrl-C" if _is_seen() else "wrenn down"
    print(f"{end} ends it; sandboxes go on without it", flush=True)


def _tell_where(url: str, key: str) -> None:
    print(f"Wrenn is up at {url}")
    print(f"  try it:   {url}/test")
    print(f"  API key:  {key}")


def _is_seen() -> bool:
    """Whether a person sees what we print; a log is not for keys."""
    return sys.stdout.isatty()
