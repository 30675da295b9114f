"""Environment variables from `K=V` arguments and files. Pure but for reading the file."""

from collections.abc import Iterable
from pathlib import Path

from wrennd.core.errors import InvalidInput


def parse_lines(lines: Iterable[str], where: str) -> dict[str, str]:
    """K=V lines; blank ones and those that begin with # are passed over. Values are literal."""
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(
                f"{where}, line {number}: {text!r} is not K=V", hint="one variable a line"
            )
        found[name.strip()] = value
    return found


def merged(file: Path | None, arguments: list[str]) -> dict[str, str]:
    """The file's variables, overridden by the arguments'."""
    found: dict[str, str] = {}
    if file is not None:
        try:
            found = parse_lines(file.read_text().splitlines(), str(file))
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise InvalidInput(
                f"the environment file {str(file)!r} can't be read: {why}",
                hint="it has lines of K=V",
            ) from error
    for text in arguments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(f"--env {text!r} is not K=V", hint="as in --env NAME=value")
        found[name] = value
    return found
