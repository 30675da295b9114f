import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.images.entries import LAST_TIME, BadTree, Kind, judge, parts

MAX_ID = 65535


def member(name="a", kind=tarfile.REGTYPE, **values):
    made = tarfile.TarInfo(name)
    made.type = kind
    for key, value in values.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/b", ("a", "b")),
        ("./a//b/./c/", ("a", "b", "c")),
        (".", ()),
        ("./", ()),
        ("...", ("...",)),
        ("ä", ("ä",)),
    ],
)
def test_names(name, found):
    assert parts(name) == found


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/passwd", "absolute"),
        ("../x", "upwards"),
        ("a/../../x", "upwards"),
        ("a/..", "upwards"),
        ("caf\udce9", "not UTF-8"),
        ("a\0b", "zero byte"),
        ("a" * 256, "longer than 255 bytes"),
        ("ä" * 128, "longer than 255 bytes"),
        ("a/" * 257 + "b", "more than 256 directories deep"),
        (("a" * 250 + "/") * 20, "longer than 4095 bytes"),
    ],
)
def test_bad_names_are_refused_and_said(name, why):
    with pytest.raises(BadTree, match=why):
        parts(name)


@pytest.mark.parametrize("name", ["/" + "a" * 100_000, "\udce9" * 100_000, "../" * 100_000])
def test_of_a_long_name_only_the_beginning_is_said(name):
    with pytest.raises(BadTree) as caught:
        parts(name)
    assert len(str(caught.value)) < 3000


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_a_name_that_is_accepted_stays_in_the_tree(name):
    try:
        found = parts(name)
    except BadTree:
        return
    assert not set(found) & {"", ".", ".."}
    assert all("/" not in part and "\0" not in part for part in found)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (tarfile.REGTYPE, Kind.FILE),
        (tarfile.AREGTYPE, Kind.FILE),
        (tarfile.DIRTYPE, Kind.DIRECTORY),
        (tarfile.SYMTYPE, Kind.SYMLINK),
        (tarfile.LNKTYPE, Kind.HARD_LINK),
    ],
)
def test_kinds(kind, found):
    assert judge(member(kind=kind, linkname="b"), max_id=MAX_ID).kind is found


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_what_the_guest_makes_itself_is_left_out_in_dev_and_refused_elsewhere(kind):
    assert judge(member("dev/x", kind), max_id=MAX_ID).kind is Kind.LEFT_OUT
    with pytest.raises(BadTree, match=r"'etc/x' is a (device|fifo)"):
        judge(member("etc/x", kind), max_id=MAX_ID)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"kind": b"V"}, "type that is not known"),
        ({"name": "."}, "is no directory"),
        ({"kind": tarfile.LNKTYPE, "linkname": "../../etc/shadow"}, "leaves the tree"),
        ({"kind": tarfile.LNKTYPE, "linkname": "/etc/shadow"}, "leaves the tree"),
        ({"kind": tarfile.SYMTYPE, "linkname": "caf\udce9"}, "target of 'a' is not UTF-8"),
        ({"uid": MAX_ID + 1}, "user 65536"),
        ({"gid": -1}, "group -1"),
        ({"size": -1}, "size of -1"),
        ({"size": 1 << 63}, "size of 9223372036854775808"),
        ({"size": 9, "sparse": [(-1, 2)]}, "where it has no bytes"),
        ({"size": 9, "sparse": [(0, 9), (0, -9)]}, "where it has no bytes"),
        ({"size": 9, "sparse": [(8, 2)]}, "where it has no bytes"),
        ({"mtime": float("nan")}, "no time"),
    ],
)
def test_bad_entries_are_refused_and_said(values, why):
    with pytest.raises(BadTree, match=why):
        judge(member(**values), max_id=MAX_ID)


@pytest.mark.parametrize("target", ["/bin/busybox", "../../../etc/shadow", "nowhere"])
def test_a_symlink_may_point_anywhere_since_only_the_guest_follows_it(target):
    assert judge(member(kind=tarfile.SYMTYPE, linkname=target), max_id=MAX_ID).target == target


@pytest.mark.parametrize(("mtime", "found"), [(-5, 0), (1.5, 1.5), (1e30, LAST_TIME)])
def test_times_become_what_a_disk_can_hold(mtime, found):
    assert judge(member(mtime=mtime), max_id=MAX_ID).mtime == found


def test_capabilities_and_users_attributes_are_kept_and_the_others_counted():
    value = b"\1\0\0\2\xff".decode(errors="surrogateescape")
    names = ("user.x", "security.capability", "security.selinux", "trusted.y")
    headers = {f"SCHILY.xattr.{name}": value for name in names} | {"mtime": "1"}
    found = judge(member(pax_headers=headers), max_id=MAX_ID)
    assert dict(found.xattrs) == {
        "user.x": b"\1\0\0\2\xff",
        "security.capability": b"\1\0\0\2\xff",
    }
    assert found.lost_xattrs == 2
