"""The commands of `wrenn`, put together."""

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
    version,
)

app = typer.Typer(
    name="wrenn",
    help="Run untrusted code in microVMs on this machine.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(
    "run",
    help=run.HELP,
    # What follows the first word of the command is the command's.
    context_settings={"allow_interspersed_args": False},
)(run.run)
app.command("create", help=create.HELP)(create.create)
app.command("exec", help=exec.HELP)(exec.exec_)
app.command("shell", help=shell.HELP)(shell.shell)
app.command("ls", help=ls.HELP)(ls.ls)
app.command("cp", help=cp.HELP)(cp.cp)
app.command("pause", help=pause.PAUSE_HELP)(pause.pause)
app.command("resume", help=pause.RESUME_HELP)(pause.resume)
app.command("fork", help=fork.HELP)(fork.fork)
app.command("kill", help=kill.HELP)(kill.kill)
app.command("logs", help=logs.HELP)(logs.logs)
app.command("forward", help=forward.HELP)(forward.forward)
app.command("top", help=top.HELP)(top.top)
app.command("events", help=events.HELP)(events.events)
app.command("df", help=df.HELP)(df.df)
app.command("prune", help=prune.HELP)(prune.prune)
app.command("backup", help=backup.BACKUP_HELP)(backup.backup)
app.command("restore", help=backup.RESTORE_HELP)(backup.restore)
app.command("up", help=up.UP_HELP)(up.up)
app.command("down", help=up.DOWN_HELP)(up.down)
app.command("uninstall", help=up.UNINSTALL_HELP)(up.uninstall)
app.command("setup", help=setup.HELP)(setup.setup)
app.command("doctor", help=doctor.HELP)(doctor.doctor)
app.command("version", help=version.HELP)(version.version)
app.add_typer(key.app, name="key", help=key.HELP)
app.add_typer(template.app, name="template", help=template.HELP)
app.add_typer(image.app, name="image", help=image.HELP)
app.add_typer(snapshot.app, name="snapshot", help=snapshot.HELP)
