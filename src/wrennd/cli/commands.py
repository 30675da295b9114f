"""The commands of `wrenn`, put together."""

from collections.abc import Callable

import typer

from wrennd.cli import (
    backup,
    cp,
    create,
    df,
    doctor,
    events,
    exec,
    fork,
    forward,
    image,
    key,
    kill,
    logs,
    ls,
    pause,
    prune,
    run,
    setup,
    shell,
    snapshot,
    template,
    top,
    up,
    usage,
    version,
)
from wrennd.cli.usage import MACHINE, SANDBOXES, SERVER, SOURCES

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
app.callback()(version.root)


def _add(
    name: str,
    function: Callable[..., object],
    text: str,
    panel: str,
    *,
    examples: str = "",
    settings: dict[str, object] | None = None,
) -> None:
    """examples: command lines, shown as they are."""
    app.command(
        name,
        help=text,
        cls=usage.Command,
        rich_help_panel=panel,
        epilog=f"\b\n{examples}" if examples else None,
        context_settings=settings,
    )(function)


_add(
    "run",
    run.run,
    run.HELP,
    SANDBOXES,
    examples=run.EXAMPLES,
    # What follows the first word of the command is the command's.
    settings={"allow_interspersed_args": False},
)
_add("create", create.create, create.HELP, SANDBOXES, examples=create.EXAMPLES)
_add("exec", exec.exec_, exec.HELP, SANDBOXES, examples=exec.EXAMPLES)
_add("shell", shell.shell, shell.HELP, SANDBOXES)
_add("ls", ls.ls, ls.HELP, SANDBOXES)
_add("cp", cp.cp, cp.HELP, SANDBOXES, examples=cp.EXAMPLES)
_add("pause", pause.pause, pause.PAUSE_HELP, SANDBOXES)
_add("resume", pause.resume, pause.RESUME_HELP, SANDBOXES)
_add("fork", fork.fork, fork.HELP, SANDBOXES)
_add("kill", kill.kill, kill.HELP, SANDBOXES)
_add("logs", logs.logs, logs.HELP, SANDBOXES)
_add("forward", forward.forward, forward.HELP, SANDBOXES, examples=forward.EXAMPLES)
_add("top", top.top, top.HELP, SANDBOXES)
_add("events", events.events, events.HELP, SANDBOXES)
app.add_typer(snapshot.app, name="snapshot", help=snapshot.HELP, rich_help_panel=SOURCES)
app.add_typer(template.app, name="template", help=template.HELP, rich_help_panel=SOURCES)
app.add_typer(image.app, name="image", help=image.HELP, rich_help_panel=SOURCES)
_add("up", up.up, up.UP_HELP, SERVER)
_add("down", up.down, up.DOWN_HELP, SERVER)
_add("uninstall", up.uninstall, up.UNINSTALL_HELP, SERVER)
app.add_typer(key.app, name="key", help=key.HELP, rich_help_panel=SERVER)
_add("df", df.df, df.HELP, MACHINE)
_add("prune", prune.prune, prune.HELP, MACHINE)
_add("backup", backup.backup, backup.BACKUP_HELP, MACHINE)
_add("restore", backup.restore, backup.RESTORE_HELP, MACHINE)
_add("setup", setup.setup, setup.HELP, MACHINE)
_add("doctor", doctor.doctor, doctor.HELP, MACHINE)
_add("version", version.version, version.HELP, MACHINE)
