from pathlib import Path

from wrennd.linux import mountinfo

TEXT = """\
23 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
90 23 0:4 net:[4026532300] /run/netns/with\\040blank rw shared:9 master:2 - nsfs nsfs rw
"""


def test_parse():
    root, cgroup, netns = mountinfo.parse(TEXT)
    assert (root.target, root.kind, root.source) == (Path("/"), "ext4", "/dev/vda")
    assert (cgroup.kind, cgroup.root) == ("cgroup2", "/")
    assert netns.target == Path("/run/netns/with blank")
    assert netns.root == "net:[4026532300]"


def test_this_machine_has_a_root():
    assert any(mount.target == Path("/") for mount in mountinfo.mounts())
