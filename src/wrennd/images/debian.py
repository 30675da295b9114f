"""A Debian root filesystem by mmdebstrap, from the host's Debian mirrors.

Inside are Debian's standard sources and nothing of the host: what the host needs to reach its
mirrors is used while building and taken out again.
"""

import shutil
from pathlib import Path

from wrennd.images import accounts
from wrennd.images.apt import Apt, tool_environment
from wrennd.images.recipe import ImageRecipe
from wrennd.linux.process import run

BUILD_TIMEOUT_S = 1800.0
_MIRROR = "http://deb.debian.org/debian"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Stays inside: what is installed later is as small, and a sandbox's disk need not survive a crash
# of its kernel in the middle of an installation.
_DPKG_OPTIONS = """\
force-unsafe-io
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/info/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
"""
_SOURCES = """\
Types: deb
URIs: {mirror}
Suites: {codename} {codename}-updates
Components: main
Signed-By: {keyring}

Types: deb
URIs: {mirror}-security
Suites: {codename}-security
Components: main
Signed-By: {keyring}
"""
_PIP = """\
# A sandbox is one machine for one purpose: pip may install into it.
[global]
break-system-packages = true
root-user-action = ignore
"""
_FILES = {
    "etc/hostname": "localhost\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    "etc/resolv.conf": "",
    "etc/machine-id": "",
    "etc/pip.conf": _PIP,
    "etc/dpkg/dpkg.cfg.d/wrenn": _DPKG_OPTIONS,
}
# Traces of the build, and files that name the host's mirrors, settings or name.
_TRACES = (
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/*",
    "etc/apt/trusted.gpg.d/*~",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/*-",
    "etc/.pwd.lock",
    "etc/ssh/ssh_host_*",
    "root/.bash_history",
    "run/*",
    "tmp/*",
    "tmp/.[!.]*",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb",
    "var/cache/debconf/*-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/apt/lists/*",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/*-old",
    "var/lib/systemd/random-seed",
    "var/log/*.log",
    "var/log/apt",
)


def build(recipe: ImageRecipe, apt: Apt, *, tree: Path, work: Path) -> None:
    """Fill `tree`, which is not there yet. `work` is scratch.

    Errors: CommandFailed, TimeoutError.
    """
    work.mkdir(parents=True, exist_ok=True)
    run(_command(recipe, apt, tree, work), timeout_s=BUILD_TIMEOUT_S, env=tool_environment())
    _make_neutral(tree, apt.codename)
    accounts.add(tree, recipe.users)


def _command(recipe: ImageRecipe, apt: Apt, tree: Path, work: Path) -> list[str]:
    network = work / "network.conf"
    network.write_text(apt.network_settings())
    return [
        # Whatever it starts ends with it, and it ends with us, also by SIGKILL.
        *("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child"),
        *("--mount-proc", "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"),
        f"--keyring={apt.keys}",
        f"--aptopt={network}",
        *(f"--dpkgopt={line}" for line in _DPKG_OPTIONS.splitlines()),
        f"--include={','.join(recipe.packages)}",
        apt.codename,
        str(tree),
        *(source.line for source in apt.sources),
    ]


def _make_neutral(tree: Path, codename: str) -> None:
    """Take out what is the host's or this build's, and put in what Debian itself would."""
    for pattern in _TRACES:
        for path in tree.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    sources = _SOURCES.format(mirror=_MIRROR, codename=codename, keyring=_KEYRING)
    for name, text in (_FILES | {"etc/apt/sources.list.d/debian.sources": sources}).items():
        path = tree / name
        path.unlink(missing_ok=True)  # it may be a link, or have another mode
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
