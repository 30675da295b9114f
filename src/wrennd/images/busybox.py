"""The smallest image: a static busybox, a link for each of its tools, and a few files."""

from collections.abc import Iterator
from pathlib import Path

from wrennd.images import accounts
from wrennd.images.apt import Apt, unpack
from wrennd.images.kernel import BUSYBOX_FILE, BUSYBOX_PACKAGE
from wrennd.images.recipe import ImageRecipe
from wrennd.linux.process import run

LIST_TIMEOUT_S = 10.0
_DIRECTORIES = (
    "bin",
    "sbin",
    "usr/bin",
    "usr/sbin",
    "etc",
    "home",
    "root",
    "tmp",
    "var",
    "var/tmp",
)
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\ntty:x:5:\n",
    "etc/shadow": "root:!:::::::\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/hostname": "localhost\n",
    "etc/os-release": 'ID=busybox\nNAME="BusyBox"\nPRETTY_NAME="BusyBox for Wrenn"\n',
    "etc/profile": "export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\n",
}
_MODES = {"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700, "etc/shadow": 0o640}


def fetch(apt: Apt, work: Path) -> Path:
    """The static busybox out of Debian's package. `work` is scratch, and holds the result."""
    package = apt.package(BUSYBOX_PACKAGE)
    unpack(apt.download([package])[BUSYBOX_PACKAGE], work)
    return work / BUSYBOX_FILE


def build(recipe: ImageRecipe, binary: Path, *, tree: Path) -> None:
    """Fill `tree`, which is not there yet. Errors: CommandFailed when `binary` can't be run."""
    for name in _DIRECTORIES:
        (tree / name).mkdir(parents=True, exist_ok=True)
        (tree / name).chmod(_MODES.get(name, 0o755))
    for name, text in _FILES.items():
        (tree / name).write_text(text)
        (tree / name).chmod(_MODES.get(name, 0o644))
    (tree / BUSYBOX_FILE).write_bytes(binary.read_bytes())
    (tree / BUSYBOX_FILE).chmod(0o755)
    for applet in _applets(binary):
        link = tree / applet
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(f"/{BUSYBOX_FILE}")
    tree.chmod(0o755)
    accounts.add(tree, recipe.users)


def _applets(binary: Path) -> Iterator[str]:
    """Where each tool belongs, such as sbin/ip."""
    listed = run((binary, "--list-full"), timeout_s=LIST_TIMEOUT_S).stdout
    yield from (line for line in listed.split() if line != BUSYBOX_FILE)
