"""Trees that somebody gives us: what comes through, and what is refused by name."""

import bz2
import errno
import gzip
import itertools
import lzma
import os
import re
import socket
import stat
import tarfile

import pytest

from foreign_tree import archive
from wrennd.core.errors import InvalidInput
from wrennd.images import intake
from wrennd.images.inject import Payload
from wrennd.images.runtime import Runtime
from wrennd.linux.process import run

DISK_MIB = 64


@pytest.fixture
def payload(tmp_path):
    runtime = tmp_path / "runtime"
    (runtime / "bin").mkdir(parents=True)
    for name in ("bin/python3", "ld.so", "VERSION"):
        (runtime / name).write_text("1.0\n")
    for name in ("envd.pyz", "busybox"):
        (tmp_path / name).write_text(name)
    return Payload(
        runtime=Runtime.load(runtime), agent=tmp_path / "envd.pyz", busybox=tmp_path / "busybox"
    )


@pytest.fixture
def take(payload, tmp_path):
    def call(source, disk_mib=DISK_MIB):
        work = tmp_path / "work"
        return intake.take(source, payload, work=work, disk_mib=disk_mib, label="test")

    return call


@pytest.fixture
def refused(take, tmp_path):
    """Make an archive, and have it refused for a reason."""

    def call(why, fill, *, has_shell=True, **options):
        with archive(tmp_path / "x.tar", has_shell=has_shell) as made:
            fill(made)
        with pytest.raises(InvalidInput, match=why) as caught:
            take(tmp_path / "x.tar", **options)
        assert caught.value.hint
        assert len(str(caught.value).splitlines()) == 1

    return call


def debugfs(disk, command):
    return run(("debugfs", "-R", command, disk), timeout_s=20).stdout


def facts(disk, path):
    """Owner, group, mode, links, type."""
    said = debugfs(disk, f"stat {path}").split()
    found = dict(itertools.pairwise(said))
    keys = ("User:", "Group:", "Mode:", "Links:", "Type:")
    return tuple(found[key] for key in keys)


def content(disk, path):
    return debugfs(disk, f"cat {path}")


def test_owners_modes_links_times_and_attributes_come_through(take, tmp_path):
    capability = (b"\1\0\0\2" + b"\0\x20\0\0" + bytes(12)).decode()
    with archive(tmp_path / "x.tar") as made:
        made.add("opt", tarfile.DIRTYPE, mode=0o2750, uid=1000, gid=8, mtime=86400)
        made.add("opt/su", data=b"s", mode=0o4755, uid=70000, gid=65534)
        made.add("opt/same", tarfile.LNKTYPE, linkname="opt/su")
        made.add("opt/to", tarfile.SYMTYPE, linkname="/nowhere/at/all", uid=5, gid=6)
        headers = {"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.x": "y"}
        made.add("opt/ping", data=b"p", mode=0o755, pax_headers=headers)
        made.add("opt/locked", tarfile.DIRTYPE, mode=0o000, uid=1)
        made.add("opt/locked/in", data=b"in", mode=0o000, uid=1)
    disk = take(tmp_path / "x.tar").disk
    assert facts(disk, "/opt") == ("1000", "8", "02750", "3", "directory")
    assert facts(disk, "/opt/su") == ("70000", "65534", "04755", "2", "regular")
    assert facts(disk, "/opt/same") == facts(disk, "/opt/su")
    assert facts(disk, "/opt/to")[:2] == ("5", "6")
    assert '"/nowhere/at/all"' in debugfs(disk, "stat /opt/to")
    assert "mtime: 0x00015180" in debugfs(disk, "stat /opt")
    attributes = debugfs(disk, "ea_list /opt/ping")
    assert "security.capability (20) = 01 00 00 02 00 20" in attributes
    assert 'user.x (1) = "y"' in attributes
    assert facts(disk, "/opt/locked/in")[:3] == ("1", "0", "0000")
    assert content(disk, "/opt/locked/in") == "in"
    run(("e2fsck", "-fn", disk), timeout_s=30)
    found = disk.stat()
    assert (found.st_uid, found.st_gid) == (0, 0)


def test_our_files_are_put_in_and_the_usual_user(take, tmp_path):
    with archive(tmp_path / "x.tar") as made:
        made.add("etc", tarfile.DIRTYPE)
        made.add("etc/passwd", data=b"root:x:0:0::/:/bin/sh\nx:x:1000:1000::/:/bin/sh\n")
        made.add("usr/lib/wrenn/init", data=b"an earlier one")
        made.add("usr/lib/wrenn/stale", data=b"")
    taken = take(tmp_path / "x.tar")
    assert content(taken.disk, "/usr/lib/wrenn/init").startswith("#!/usr/lib/wrenn/busybox sh")
    assert facts(taken.disk, "/usr/lib/wrenn/busybox")[:3] == ("0", "0", "0755")
    assert facts(taken.disk, "/tmp")[2] == "01777"
    assert (
        "File not found"
        in run(("debugfs", "-R", "stat /usr/lib/wrenn/stale", taken.disk), timeout_s=20).stderr
    )
    assert "user:x:1001:1001::/home/user:/bin/sh\n" in content(taken.disk, "/etc/passwd")
    assert facts(taken.disk, "/home/user")[:2] == ("1001", "1001")


def test_links_of_the_tree_lead_nowhere_on_the_host(take, tmp_path):
    """What we add follows them, but inside the tree."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    with archive(tmp_path / "x.tar") as made:
        for name in ("usr", "etc", "home"):
            made.add(name, tarfile.SYMTYPE, linkname=os.fspath(outside / name))
            made.add(f"{outside}/{name}".lstrip("/"), tarfile.DIRTYPE)
    disk = take(tmp_path / "x.tar").disk
    assert [*outside.iterdir()] == []
    assert "user:" in content(disk, f"{outside}/etc/passwd")


@pytest.mark.parametrize(
    ("compress", "name"), [(gzip.compress, "gz"), (bz2.compress, "bz2"), (lzma.compress, "xz")]
)
def test_compressed_archives(take, tmp_path, compress, name):
    with archive(tmp_path / "x.tar") as made:
        made.add("f", data=b"data" * 100)
    packed = tmp_path / f"x.tar.{name}"
    packed.write_bytes(compress((tmp_path / "x.tar").read_bytes()))
    assert content(take(packed).disk, "/f") == "data" * 100


def test_a_later_entry_replaces_an_earlier_one(take, tmp_path):
    with archive(tmp_path / "x.tar") as made:
        made.add("a", data=b"first", mode=0o4777)
        made.add("a", data=b"second")
        made.add("d/in", data=b"x")
        made.add("d", data=b"now a file")
        made.add("g/h", tarfile.DIRTYPE)
        made.add("g", data=b"a file first")
        made.add("g", tarfile.DIRTYPE)
        made.add("e", tarfile.SYMTYPE, linkname="/etc")
        made.add("e", tarfile.DIRTYPE)
    disk = take(tmp_path / "x.tar").disk
    assert (content(disk, "/a"), facts(disk, "/a")[2]) == ("second", "0644")
    assert content(disk, "/d") == "now a file"
    assert facts(disk, "/e")[4] == "directory"
    assert " h " not in debugfs(disk, "ls /g")


def test_holes_take_no_space_and_stay_holes(take, tmp_path):
    """GNU tar's, larger than the disk, as /var/log/lastlog is often."""
    source = tmp_path / "source"
    (source / "bin").mkdir(parents=True)
    (source / "bin/sh").write_text("#!/bin/true\n")
    (source / "bin/sh").chmod(0o755)
    with (source / "log").open("wb") as file:
        file.truncate(10 << 30)
        file.seek(5 << 30)
        file.write(b"here")
    run(("tar", "-C", source, "-S", "-cf", tmp_path / "x.tar", "."), timeout_s=60)
    taken = take(tmp_path / "x.tar")
    assert taken.size_bytes < 1 << 20
    assert "Size: 10737418240" in debugfs(taken.disk, "stat /log")
    assert taken.disk.stat().st_blocks * 512 < 16 << 20


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices(take, refused, tmp_path, kind):
    with archive(tmp_path / "dev.tar") as made:
        made.add("dev/console", kind, devmajor=5, devminor=1)
    notes = take(tmp_path / "dev.tar").notes
    assert any("1 devices in /dev were left out" in note for note in notes)
    (tmp_path / "work").rename(tmp_path / "done")
    refused("'srv/x' is a (device|fifo)", lambda made: made.add("srv/x", kind))


@pytest.mark.parametrize(
    ("fill", "why"),
    [
        (lambda made: made.add("/etc/x"), "'/etc/x' is absolute"),
        (lambda made: made.add("../x"), r"'\.\./x' leads upwards"),
        (lambda made: made.add("caf\udce9"), r"'caf\\udce9' is not UTF-8"),
        (lambda made: made.add("a" * 300), "longer than 255"),
        (lambda made: made.add("a/" * 300 + "b"), "256 directories deep"),
        (lambda made: made.add("x", tarfile.LNKTYPE, linkname="../y"), "hard link 'x' leaves"),
        (lambda made: made.add("x", tarfile.LNKTYPE, linkname="/etc/shadow"), "leaves the tree"),
        (lambda made: made.add("x", tarfile.LNKTYPE, linkname="gone"), "'gone', which is not"),
        (lambda made: made.add("x", tarfile.LNKTYPE, linkname="."), "which is not in the tree"),
        (lambda made: made.add("x", tarfile.LNKTYPE, linkname="bin"), "'x' is to a directory"),
        (lambda made: made.add("x", uid=1 << 30), "user 1073741824"),
        (lambda made: made.add("bin/sh/x"), "'bin/sh', which is no directory"),
        (lambda made: made.add("big", data=bytes(65 << 20)), "don't fit on a disk of 64 MiB"),
    ],
)
def test_bad_entries(refused, fill, why):
    refused(why, fill)


@pytest.mark.parametrize("target", ["/tmp", "bin"])
def test_nothing_is_written_through_a_link(refused, target):
    def fill(made):
        made.add("l", tarfile.SYMTYPE, linkname=target)
        made.add("l/x", data=b"x")

    refused("'l/x' is to lie below 'l', which is a symlink", fill)


def test_a_hard_link_does_not_follow_a_link(refused):
    def fill(made):
        made.add("l", tarfile.SYMTYPE, linkname="/etc")
        made.add("x", tarfile.LNKTYPE, linkname="l/shadow")

    refused("below 'l', which is a symlink", fill)


def test_too_many_files(refused):
    def fill(made):
        for number in range(4000):
            made.add(f"many/{number}")

    refused("more than 3096 entries", fill)


@pytest.mark.long
def test_a_million_files(refused, tmp_path):
    def fill(made):
        header = tarfile.TarInfo("f").tobuf()
        for number in range(1_000_001):
            name = f"d{number // 1000}/{number}".encode().ljust(100, b"\0")
            block = bytearray(name + header[100:])
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
            made.tar.fileobj.write(block)

    refused("more than 1000000 entries", fill, disk_mib=1 << 15)


@pytest.mark.parametrize(
    ("shell", "why"),
    [
        (None, "no /bin/sh in it"),
        ({"data": b"#!/bin/true\n", "mode": 0o644}, "can't be executed"),
        ({"kind": tarfile.SYMTYPE, "linkname": "/bin/gone"}, "no /bin/sh in it"),
        ({"kind": tarfile.SYMTYPE, "linkname": "sh"}, "no /bin/sh in it"),
        ({"data": b"\x7fELF" + bytes(14) + b"\xb7\0", "mode": 0o755}, "another processor"),
    ],
)
def test_what_is_no_distribution(refused, shell, why):
    def fill(made):
        made.add("etc", tarfile.DIRTYPE)
        if shell:
            made.add("bin/sh", **shell)

    refused(why, fill, has_shell=False)


def test_a_file_where_ours_belong(refused):
    refused("in the way", lambda made: made.add("usr", data=b"x"))


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_that_is_cut_off(take, tmp_path, compress, cut):
    with archive(tmp_path / "x.tar") as made:
        made.add("f", data=os.urandom(200_000))
    data = compress((tmp_path / "x.tar").read_bytes())
    (tmp_path / "cut").write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(InvalidInput, match=r"damaged|ends in the middle|no tar archive"):
        take(tmp_path / "cut")


def test_a_damaged_header_is_not_taken_for_the_end(take, tmp_path):
    with archive(tmp_path / "x.tar") as made:
        made.add("first")
        made.add("second")
    data = bytearray((tmp_path / "x.tar").read_bytes())
    at = data.index(b"second")
    data[at] ^= 1
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(InvalidInput, match="damaged"):
        take(tmp_path / "x.tar")


def test_bombs(take, tmp_path):
    """A file of zeros without end, and a header of 2 GiB."""
    bomb = tarfile.TarInfo("bomb")
    bomb.size = 1 << 40
    (tmp_path / "zeros").write_bytes(gzip.compress(bomb.tobuf() + bytes(1 << 20)))
    with pytest.raises(InvalidInput, match=r"don't fit.*'bomb'"):
        take(tmp_path / "zeros")
    (tmp_path / "work").rename(tmp_path / "done")
    header = tarfile.TarInfo("x")
    header.type = tarfile.GNUTYPE_LONGNAME
    header.size = 2 << 30
    with (tmp_path / "header").open("wb") as file:
        file.write(header.tobuf())
        file.truncate(3 << 30)
    with pytest.raises(InvalidInput, match="does not fit into memory"):
        take(tmp_path / "header")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no tar archive"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "zstd"),
        (b"PK\3\4" + os.urandom(2000), "no tar archive"),
        (gzip.compress(b"hello", mtime=0), "no tar archive"),
    ],
)
def test_what_is_no_archive(take, tmp_path, data, why):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(InvalidInput, match=why):
        take(tmp_path / "x")


@pytest.fixture
def directory(tmp_path):
    made = tmp_path / "given"
    (made / "bin").mkdir(parents=True)
    (made / "bin/sh").write_text("#!/bin/true\n")
    (made / "bin/sh").chmod(0o755)
    return made


def test_a_directory(take, directory, tmp_path):
    (directory / "f").write_text("x")
    os.link(directory / "f", directory / "g")
    os.chown(directory / "f", 33, 44)
    (directory / "f").chmod(0o6750)
    (directory / "l").symlink_to("/etc/passwd")
    os.mknod(directory / "bin/x", stat.S_IFREG | 0o600)
    (directory / "dev").mkdir()
    os.mknod(directory / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    taken = take(directory)
    assert facts(taken.disk, "/f") == ("33", "44", "06750", "2", "regular")
    assert '"/etc/passwd"' in debugfs(taken.disk, "stat /l")
    assert any("left out" in note for note in taken.notes)


def test_a_directory_with_another_filesystem_in_it(take, directory):
    (directory / "mnt").mkdir()
    run(("mount", "-t", "tmpfs", "wrenn-test", directory / "mnt"), timeout_s=60)
    try:
        (directory / "mnt/secret").touch()
        disk = take(directory).disk
    finally:
        run(("umount", directory / "mnt"), timeout_s=60)
    assert facts(disk, "/mnt")[4] == "directory"
    assert "secret" not in debugfs(disk, "ls /mnt")


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(path))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda tree: make_socket(tree / "s"), "'s' is a socket"),
        (lambda tree: os.mkfifo(tree / "p"), "'p' is a fifo"),
        (lambda tree: os.mknod(tree / "d", stat.S_IFBLK, os.makedev(7, 0)), "'d' is a device"),
        (lambda tree: (tree / os.fsdecode(b"caf\xe9")).touch(), "not UTF-8"),
        (lambda tree: (tree / "l").symlink_to(os.fsdecode(b"\xff")), "not UTF-8"),
        (lambda tree: (tree / "bin/sh").unlink(), "no /bin/sh"),
        (lambda tree: (tree / "big").write_bytes(bytes(65 << 20)), "don't fit"),
    ],
)
def test_bad_directories(take, directory, spoil, why):
    spoil(directory)
    with pytest.raises(InvalidInput, match=why):
        take(directory)


def test_what_is_neither_file_nor_directory(take, tmp_path):
    with pytest.raises(InvalidInput, match=re.escape(os.strerror(errno.ENOENT))):
        take(tmp_path / "gone")
    (tmp_path / "work").rename(tmp_path / "done")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="neither a directory nor a file"):
        take(tmp_path / "pipe")


def test_a_full_disk_is_told_as_such(payload, tmp_path):
    with archive(tmp_path / "x.tar") as made:
        made.add("big", data=bytes(30 << 20))
    small = tmp_path / "small"
    small.mkdir()
    run(("mount", "-t", "tmpfs", "-o", "size=20m", "wrenn-test", small), timeout_s=60)
    try:
        with pytest.raises(OSError, match=re.escape(os.strerror(errno.ENOSPC))) as caught:
            intake.take(
                tmp_path / "x.tar", payload, work=small / "work", disk_mib=DISK_MIB, label="x"
            )
    finally:
        run(("umount", small), timeout_s=60)
    assert caught.value.errno == errno.ENOSPC
