"""The lab's third disk, made for each run: the working tree, and what is to be done with it.

A plain tar, which the lab reads from the device. `tree/` is the repository without what is built in
it; `order/` holds the init, the command (a shell script) and, where one is given, a Firecracker.
"""

import compileall
import io
import os
import shlex
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab_host import recipe

# Everything that is ours; what is not named (caches, environments, .git) stays outside.
_PARTS = (
    *("CHANGELOG.md", "Makefile", "README.md", "pyproject.toml"),
    *("docs", "images", "proto", "src", "tests"),
)
_LEFT_OUT = (".so", ".egg-info")
# Several times that of a test outside: the CPU is emulated.
TEST_TIMEOUT_S = 900


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is done in the lab. command: a script for bash, run in the tree; empty: a shell.

    terminal: rows, columns and kind of the terminal for a shell. firecracker: a binary to test.
    """

    command: str = ""
    terminal: tuple[int, int, str] = (24, 80, "linux")
    firecracker: Path | None = None


def pytest_order(arguments: Sequence[str], firecracker: Path | None = None) -> Order:
    """Run the tests marked `lab`; `arguments` are pytest's and come last."""
    command = (
        *("python", "-m", "pytest", "-m", "lab", "-o", f"timeout={TEST_TIMEOUT_S}"),
        # /tmp is memory, which the snapshots of a hundred guests would fill: what passed goes.
        *("-o", "tmp_path_retention_policy=failed"),
        *("-p", "no:cacheprovider", "-rsfE", "--junitxml=/lab/results/junit.xml", *arguments),
    )
    return Order(command=f"exec {shlex.join(command)}\n", firecracker=firecracker)


def write(order: Order, target: Path) -> None:
    """Make the disk. Errors: FileNotFoundError for a Firecracker that is not there."""
    # Here it takes a second, in the lab a minute. Times in seconds, by which Python knows whether
    # what is compiled is current, survive a tar.
    for part in ("src", "tests"):
        compileall.compile_dir(recipe.REPOSITORY / part, quiet=2)
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for part in _PARTS:
            archive.add(recipe.REPOSITORY / part, f"tree/{part}", filter=_ours)
        archive.add(recipe.HERE / "inside" / "init.sh", "order/init", filter=_roots)
        archive.add(recipe.HERE / "inside" / "data.py", "order/data.py", filter=_roots)
        if order.command:
            _add_text(archive, "order/command", order.command)
        else:
            rows, columns, kind = order.terminal
            _add_text(archive, "order/shell", f"{rows} {columns} {kind}\n")
        if order.firecracker is not None:
            archive.add(os.path.realpath(order.firecracker), "order/firecracker", filter=_roots)


def _ours(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.name.endswith(_LEFT_OUT) else _roots(member)


def _roots(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(_roots(member), io.BytesIO(data))
