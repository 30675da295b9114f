"""`wrenn version`."""

from wrennd import __version__

HELP = "Print the version."


def version() -> None:
    print(f"wrenn {__version__}")
