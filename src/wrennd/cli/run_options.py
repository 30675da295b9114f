"""The options of `wrenn run`, `create` and `exec`, as Typer reads them from their types."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

Words = Annotated[list[str], Argument(metavar="-- CMD...", show_default=False)]
Template = Annotated[str, Option(metavar="NAME", help="Base image or snapshot template.")]
Vcpus = Annotated[int | None, Option(metavar="N", help="Virtual CPUs, 1 to 32.", show_default="1")]
Memory = Annotated[int | None, Option(metavar="MIB", help="Memory in MiB.", show_default="512")]
Disk = Annotated[
    int | None,
    Option(
        metavar="MIB",
        help="Length of the disk in MiB, no less than the template's.",
        show_default="the template's",
    ),
]
Env = Annotated[list[str] | None, Option(metavar="K=V", help="Set a variable (repeatable).")]
EnvFile = Annotated[
    Path | None, Option(metavar="F", help="Read variables from a file of K=V lines.")
]
Cwd = Annotated[str, Option(metavar="DIR", help="Directory to run in.")]
User = Annotated[str, Option(metavar="U", help="User to run as.")]
Copies = Annotated[
    list[str] | None,
    Option("--copy", metavar="SRC:DST", help="Copy a file or directory in first (repeatable)."),
]
Timeout = Annotated[
    float,
    Option(
        metavar="S",
        min=0.0,
        max=31_536_000.0,
        help="Stop S seconds after the sandbox is ready, with exit code 124; 0: never.",
        show_default=False,
    ),
]
ExecTimeout = Annotated[
    float,
    Option(
        metavar="S",
        min=0.0,
        max=31_536_000.0,
        help="End the command after S seconds, with exit code 124; 0: never.",
        show_default=False,
    ),
]
Dns = Annotated[list[str] | None, Option(metavar="IP", help="Resolver to use (repeatable).")]
Interactive = Annotated[bool, Option("-i", "--interactive", help="Pass our stdin to the command.")]
AsTerminal = Annotated[bool, Option("-t", "--tty", help="Give the command a terminal: ours.")]
Cold = Annotated[
    bool, Option("--cold", help="Boot, also where a frozen guest could be restored instead.")
]
ShowTimings = Annotated[
    bool, Option("--timings", help="Print how long each phase took, on stderr.")
]
