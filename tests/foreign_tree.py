"""Root filesystems for tests of `wrenn image import`: archives of any kind, an Alpine's like."""

import io
import shutil
import tarfile
from contextlib import contextmanager
from pathlib import Path

from wrennd.images.apt import Apt, unpack
from wrennd.linux.files import locked
from wrennd.linux.process import run
from wrennd.storage.layout import Layout

BUSYBOX = Path("/usr/bin/busybox")
APPLETS = ("sh", "ls", "cat", "id", "stat", "cut")
FILES = {
    "etc/alpine-release": "3.20.0\n",
    "etc/os-release": 'ID=alpine\nNAME="Alpine Linux"\n',
    "etc/passwd": "root:x:0:0:root:/root:/bin/ash\n",
    "etc/group": "root:x:0:root\n",
    "etc/shadow": "root:*::0:::::\n",
}
# Without a single header, since those that are here are another C library's.
HELLO = """\
int puts(const char *text);
_Noreturn void exit(int code);
__attribute__((force_align_arg_pointer)) void _start(void) { puts("hello from musl"); exit(0); }
"""


class Archive:
    """A tar being written; `name` of anything may be what no filesystem would take."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.tar = tar

    def add(self, name, kind=tarfile.REGTYPE, data=b"", **values):
        member = tarfile.TarInfo(name)
        member.type = kind
        member.size = len(data)
        member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        for key, value in values.items():
            setattr(member, key, value)
        self.tar.addfile(member, io.BytesIO(data))

    def add_shell(self):
        """What makes any archive the root of a distribution."""
        self.add("bin", tarfile.DIRTYPE)
        self.add("bin/sh", data=b"#!/bin/true\n", mode=0o755)


@contextmanager
def archive(path: Path, mode: str = "w", *, has_shell: bool = True):
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        made = Archive(tar)
        if has_shell:
            made.add_shell()
        yield made


def make_alpine_like(tree: Path, layout: Layout) -> None:
    """Alpine's files where Alpine has them: musl's loader, busybox for every tool, and `hello`."""
    for name in ("bin", "sbin", "etc", "lib", "dev", "proc", "sys", "tmp", "root", "usr/bin"):
        (tree / name).mkdir(parents=True)
    for name, text in FILES.items():
        (tree / name).write_text(text)
    (tree / "tmp").chmod(0o1777)
    musl = tree / "lib/ld-musl-x86_64.so.1"
    shutil.copy(_musl(layout, tree.with_name("musl")), musl)
    libc = tree / "lib/libc.musl-x86_64.so.1"
    libc.symlink_to(musl.name)
    shutil.copy(BUSYBOX, tree / "bin/busybox")
    for name in APPLETS:
        (tree / "bin" / name).symlink_to("/bin/busybox")
    source = tree.with_name("hello.c")
    source.write_text(HELLO)
    loader = f"-Wl,--dynamic-linker=/lib/{musl.name}"
    flags = ("-nostdlib", "-fno-builtin", "-fno-stack-protector", loader)
    needed = ("-L", libc.parent, f"-l:{libc.name}")  # as Alpine's own programs have it
    run(("gcc", *flags, "-o", tree / "usr/bin/hello", source, *needed), timeout_s=60)


def _musl(layout: Layout, scratch: Path) -> Path:
    """Out of Debian's package, which apt fetches with the lists that setup has read."""
    with locked(layout.setup_lock):
        apt = Apt(layout.cache / "apt")
        package = apt.package("musl")
        unpack(apt.download([package])["musl"], scratch)
    return scratch / "lib/x86_64-linux-musl/libc.so"
