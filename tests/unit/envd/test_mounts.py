"""mountinfo, parsed."""

from wrennd.envd.mounts import filesystem_types, find_mount, network_filesystem

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
25 22 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw
30 22 0:40 / /mnt/share rw,relatime - nfs4 server:/x rw
31 22 0:41 / /mnt/s3 rw - fuse.s3fs s3fs rw
broken
"""


def test_types_by_device():
    assert filesystem_types(MOUNTINFO) == {
        "254:0": "ext4",
        "0:23": "cgroup2",
        "0:40": "nfs4",
        "0:41": "fuse.s3fs",
    }


def test_where_a_type_is_mounted():
    assert find_mount(MOUNTINFO, "cgroup2") == "/sys/fs/cgroup"
    assert find_mount(MOUNTINFO, "xfs") == ""


def test_what_is_local(tmp_path):
    assert network_filesystem(str(tmp_path)) == ""
