"""Prove the two commands on a fresh machine: a Debian 12 root of its own with a plain PATH.

It holds what DESIGN calls fresh (python3, pip, git; make, without which no command of a
Makefile runs) and a clean clone of HEAD; nothing of this checkout's environment but the settings
by which package registries are reached. Prints the time of each command beside its limit; exits
with 1 when one fails, takes longer, or `make run` does not print hello last. `--keep` leaves it;
`--only run` skips the tests.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from wrennd.linux.libc import check, libc

REPO = Path(__file__).resolve().parents[2]
PLAIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = "ca-certificates,git,make,python3,python3-pip"
# How registries are reached: taken over, as any machine would have its own.
PASSED = ("PIP_", "SSL_CERT", "REQUESTS_CA", "CURL_CA", "http_proxy", "https_proxy", "no_proxy",
          "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")  # fmt: skip
NOT_PASSED = ("PIP_FIND_LINKS",)  # wheels that lie on this machine

ENTER = """
set -eu
root=$3
mount --make-rprivate /
# The root of a real machine is a mount point, and things that change propagation rely on it.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
cgroup=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
[ -z "$cgroup" ] || mount --bind "$cgroup" "$root/sys/fs/cgroup"
exec "$0" "$@"
"""
# A process in a chroot may make no user namespace (unshare(2), EPERM): its root must be the mount
# namespace's.
BECOME_ROOT = "--become-root"
SYS_PIVOT_ROOT = 155
MNT_DETACH = 2


def main() -> int:
    if sys.argv[1:2] == [BECOME_ROOT]:
        become_root(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--only", choices=("run", "test"))
    options = parser.parse_args()
    wanted = [step for step in STEPS if options.only in (None, step.target)]
    with fresh_root(keep=options.keep) as root:
        clone(root)
        return 0 if all([perform(step, root) for step in wanted]) else 1


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command of the Makefile, how long it may take, and what it must print last, if anything."""

    label: str
    target: str
    limit_s: float
    last_line: str = ""


STEPS = (
    Step(label="make run, the first time", target="run", limit_s=240, last_line="hello"),
    Step(label="make run, again", target="run", limit_s=10, last_line="hello"),
    Step(label="make test", target="test", limit_s=1800),
)


@contextmanager
def fresh_root(*, keep: bool) -> Iterator[Path]:
    """A Debian 12 made from this machine's apt sources (those of Debian itself)."""
    parent = Path(tempfile.mkdtemp(prefix="wrenn-fresh-", dir="/var/tmp"))
    root = parent / "root"
    started = time.monotonic()
    try:
        command = ["mmdebstrap", "--variant=apt", f"--include={PACKAGES}", "--quiet", "bookworm"]
        subprocess.run([*command, root, *debian_sources()], check=True)
        take_over_registry_settings(root)
        print(f"fresh: a Debian 12 in {time.monotonic() - started:.1f} s", flush=True)
        yield root
    finally:
        if keep:
            print(f"fresh: kept {root}", flush=True)
        else:
            shutil.rmtree(parent)


def debian_sources() -> list[str]:
    lines = subprocess.run(
        ["apt-get", "indextargets", "--format", "deb $(SITE) $(RELEASE) $(COMPONENT)",
         "Origin: Debian", "Created-By: Packages"],
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    return sorted({line for line in lines if " bookworm" in line})


def take_over_registry_settings(root: Path) -> None:
    """Proxies and certificates of apt and pip: configuration, not software."""
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs")
    for file in Path("/etc/apt/apt.conf.d").glob("*proxy*"):
        shutil.copy(file, root / "etc/apt/apt.conf.d")
    for file in (Path("/etc/pip.conf"), Path("/etc/resolv.conf"), Path("/etc/hosts")):
        if file.exists():
            shutil.copy(file, root / file.relative_to("/"))


def clone(root: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", REPO, root / "src"], check=True)


def become_root(root: str, argv: list[str]) -> NoReturn:
    """Make `root`, a mount point, the root of this mount namespace, and run a program in it."""
    os.chdir(root)
    check(libc.syscall(SYS_PIVOT_ROOT, b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")
    os.execv(argv[0], argv)


def perform(step: Step, root: Path) -> bool:
    """Run the step inside and judge it. Its stderr is shown as it comes."""
    env = {k: v for k, v in os.environ.items() if k.startswith(PASSED) and k not in NOT_PASSED}
    env |= {"PATH": PLAIN_PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
    pairs = (f"{name}={value}" for name, value in env.items())
    inside = ["/usr/bin/env", "-i", *pairs, "make", "-s", "-C", "/src", step.target]
    enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER]
    itself = [sys.executable, str(Path(__file__).resolve()), BECOME_ROOT]
    started = time.monotonic()
    done = subprocess.run(
        [*enter, *itself, root, *inside], env=env, stdout=subprocess.PIPE, text=True, check=False
    )
    seconds = time.monotonic() - started
    print(done.stdout, end="")
    problems = []
    if done.returncode != 0:
        problems.append(f"exit code {done.returncode}")
    if seconds > step.limit_s:
        problems.append("TOO SLOW")
    if step.last_line and done.stdout.splitlines()[-1:] != [step.last_line]:
        problems.append(f"did not print {step.last_line} last")
    verdict = ", ".join(problems) or "good"
    print(f"fresh: {step.label}: {seconds:.1f} s of {step.limit_s:g} s: {verdict}", flush=True)
    return not problems


if __name__ == "__main__":
    sys.exit(main())
