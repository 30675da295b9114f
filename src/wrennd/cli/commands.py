"""The commands of `wrenn`, put together: the one that is asked for, or all of them.

Reading all modules and making commands of them takes 100 ms, a tenth of the time in which a sandbox
starts and ends. So one command is made alone; all are for `--help`, completion, and words that are
none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module

import typer

from wrennd.cli import usage, version
from wrennd.cli.usage import MACHINE, SANDBOXES, SERVER, SOURCES


@dataclass(frozen=True, kw_only=True)
class Made:
    """Where a command is: a module of this package, and in there its function, help and examples.

    function: empty for a group of commands, which is the module's `app`. settings: click's.
    """

    panel: str
    module: str
    function: str = ""
    help: str = "HELP"
    settings: Mapping[str, object] = field(default_factory=dict)

    def add_to(self, app: typer.Typer, name: str) -> None:
        found = import_module(f"wrennd.cli.{self.module}")
        text = getattr(found, self.help)
        if not self.function:
            app.add_typer(found.app, name=name, help=text, rich_help_panel=self.panel)
            return
        examples = getattr(found, "EXAMPLES", "")
        app.command(
            name,
            help=text,
            cls=usage.Command,
            rich_help_panel=self.panel,
            epilog=f"\b\n{examples}" if examples else None,
            context_settings=dict(self.settings) or None,
        )(getattr(found, self.function))


# What follows the first word of the command that is run is that command's.
_OWN_WORDS = {"allow_interspersed_args": False}

COMMANDS = {
    "run": Made(panel=SANDBOXES, module="run", function="run", settings=_OWN_WORDS),
    "create": Made(panel=SANDBOXES, module="create", function="create"),
    "exec": Made(panel=SANDBOXES, module="exec", function="exec_"),
    "shell": Made(panel=SANDBOXES, module="shell", function="shell"),
    "ls": Made(panel=SANDBOXES, module="ls", function="ls"),
    "cp": Made(panel=SANDBOXES, module="cp", function="cp"),
    "pause": Made(panel=SANDBOXES, module="pause", function="pause", help="PAUSE_HELP"),
    "resume": Made(panel=SANDBOXES, module="pause", function="resume", help="RESUME_HELP"),
    "fork": Made(panel=SANDBOXES, module="fork", function="fork"),
    "kill": Made(panel=SANDBOXES, module="kill", function="kill"),
    "logs": Made(panel=SANDBOXES, module="logs", function="logs"),
    "forward": Made(panel=SANDBOXES, module="forward", function="forward"),
    "top": Made(panel=SANDBOXES, module="top", function="top"),
    "events": Made(panel=SANDBOXES, module="events", function="events"),
    "snapshot": Made(panel=SOURCES, module="snapshot"),
    "template": Made(panel=SOURCES, module="template"),
    "image": Made(panel=SOURCES, module="image"),
    "up": Made(panel=SERVER, module="up", function="up", help="UP_HELP"),
    "down": Made(panel=SERVER, module="up", function="down", help="DOWN_HELP"),
    "uninstall": Made(panel=SERVER, module="up", function="uninstall", help="UNINSTALL_HELP"),
    "key": Made(panel=SERVER, module="key"),
    "df": Made(panel=MACHINE, module="df", function="df"),
    "prune": Made(panel=MACHINE, module="prune", function="prune"),
    "backup": Made(panel=MACHINE, module="backup", function="backup", help="BACKUP_HELP"),
    "restore": Made(panel=MACHINE, module="backup", function="restore", help="RESTORE_HELP"),
    "setup": Made(panel=MACHINE, module="setup", function="setup"),
    "doctor": Made(panel=MACHINE, module="doctor", function="doctor"),
    "version": Made(panel=MACHINE, module="version", function="version"),
}


def app_for(words: Sequence[str]) -> typer.Typer:
    """What understands a command line, its words behind the program's name."""
    return _with(words[:1] if words and words[0] in COMMANDS else COMMANDS)


def _with(names: Iterable[str]) -> typer.Typer:
    app = typer.Typer(
        name="wrenn",
        help="Run untrusted code in microVMs on this machine.",
        epilog="wrenn COMMAND --help says more of each.",
        cls=usage.Group,
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    # It also keeps Typer from taking an only command for the program itself.
    app.callback()(version.root)
    for name in names:
        COMMANDS[name].add_to(app, name)
    return app
