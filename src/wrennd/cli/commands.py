"""The commands of `wrenn`, put together."""

import typer

from wrennd.cli import doctor, image, run, setup, version

app = typer.Typer(
    name="wrenn",
    help="Run untrusted code in microVMs on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(
    "run",
    help=run.HELP,
    # What follows the first word of the command is the command's.
    context_settings={"allow_interspersed_args": False},
)(run.run)
app.command("setup", help=setup.HELP)(setup.setup)
app.command("doctor", help=doctor.HELP)(doctor.doctor)
app.command("version", help=version.HELP)(version.version)
app.add_typer(image.app, name="image", help=image.HELP)
