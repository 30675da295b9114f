"""The registry of loop devices, with a kernel that is none."""

import os

import pytest

from fakes.loops import FakeLoops
from wrennd.core.errors import HostUnsuitable, NoCapacity
from wrennd.storage.loops import LoopRegistry


@pytest.fixture
def kernel():
    made = FakeLoops()
    yield made
    made.close()


@pytest.fixture
def registry(kernel, tmp_path):
    return LoopRegistry("wrenn-abc123", tmp_path / "lock", kernel)


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base"
    path.write_bytes(b"x" * 4096)
    with path.open("rb") as file:
        yield file.fileno()


def use(registry, kernel, base, name):
    """What a driver does: a device is made of the loop device while that is held."""
    with registry.shared(base) as device:
        kernel.hold(device, name)
    return device


def test_disks_of_one_base_share_its_device(registry, kernel, base):
    devices = {use(registry, kernel, base, f"dm-{n}") for n in range(5)}
    assert len(devices) == 1
    assert kernel.made == 1
    (found,) = registry.users()
    assert found.users == {f"dm-{n}" for n in range(5)}
    assert found.inode == os.fstat(base).st_ino


def test_the_last_user_takes_the_device_along(registry, kernel, base):
    for name in ("dm-0", "dm-1"):
        use(registry, kernel, base, name)
    kernel.drop("dm-0")
    assert len(registry.users()) == 1
    kernel.drop("dm-1")
    assert registry.users() == ()
    use(registry, kernel, base, "dm-2")
    assert kernel.made == 2


def test_a_base_that_nothing_was_made_of_leaves_no_device(registry, kernel, base):
    def fail():
        with registry.shared(base):
            raise RuntimeError("the table can't be loaded")

    with pytest.raises(RuntimeError):
        fail()
    assert registry.users() == ()


def test_another_process_counts_the_same(registry, kernel, base, tmp_path):
    use(registry, kernel, base, "dm-0")
    other = LoopRegistry("wrenn-abc123", tmp_path / "lock", kernel)
    assert other.users() == registry.users()
    use(other, kernel, base, "dm-1")
    assert kernel.made == 1


def test_a_base_is_its_file_whatever_it_is_called(registry, kernel, base, tmp_path):
    use(registry, kernel, base, "dm-0")
    os.link(tmp_path / "base", tmp_path / "again")
    (tmp_path / "base").unlink()
    with (tmp_path / "again").open("rb") as file:
        use(registry, kernel, file.fileno(), "dm-1")
    assert kernel.made == 1


def test_other_files_have_devices_of_their_own(registry, kernel, base, tmp_path):
    use(registry, kernel, base, "dm-0")
    (tmp_path / "other").write_bytes(b"y" * 4096)
    with (tmp_path / "other").open("rb") as file:
        use(registry, kernel, file.fileno(), "dm-1")
    assert sorted(len(found.users) for found in registry.users()) == [1, 1]


@pytest.mark.parametrize(
    "made",
    [
        {"read_only": True, "name": "wrenn-zzz999"},
        {"read_only": True, "name": ""},
        {"read_only": False, "name": "wrenn-abc123"},
        {"read_only": True, "name": "wrenn-abc123", "offset": 512},
        {"read_only": True, "name": "wrenn-abc123", "size_limit": 512},
    ],
)
def test_devices_that_are_not_quite_it_are_left_alone(registry, kernel, base, made):
    fd, device = kernel.attach(base, **made)
    assert use(registry, kernel, base, "dm-0") != device
    assert [found.device for found in registry.users()] != [device]
    os.close(fd)


def test_a_disks_device_is_its_own_and_writable(registry, kernel, base):
    with registry.own(base, offset=4096) as one, registry.own(base, offset=4096) as two:
        assert one != two
        assert not list(kernel.numbers(read_only=True))
    assert list(kernel.numbers()) == []
    assert registry.users() == ()


def test_no_device_left(tmp_path, base):
    kernel = FakeLoops(size=1)
    registry = LoopRegistry("wrenn-abc123", tmp_path / "lock", kernel)
    try:
        with (
            registry.own(base, offset=0),
            pytest.raises(NoCapacity, match="no loop device left"),
            registry.shared(base),
        ):
            raise AssertionError("there can't be one")
        use(registry, kernel, base, "dm-0")
    finally:
        kernel.close()


class Nothing(FakeLoops):
    """A container without loop devices."""

    def attach(self, file, **_):
        raise PermissionError(1, "Operation not permitted")


def test_no_devices_at_all(tmp_path, base):
    registry = LoopRegistry("wrenn-abc123", tmp_path / "lock", Nothing())
    with pytest.raises(HostUnsuitable, match="can't be used"), registry.shared(base):
        raise AssertionError("there can't be one")


class Vanishing(FakeLoops):
    """Devices are gone by the time that somebody opens them, or looks at them."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def open_loop(self, number, *, read_only=True):
        if self.at == "open":
            raise OSError(6, "No such device or address")
        return super().open_loop(number, read_only=read_only)

    def status(self, fd):
        raise OSError(6, "No such device or address")


@pytest.mark.parametrize("at", ["open", "status"])
def test_a_device_that_goes_while_it_is_looked_at(tmp_path, base, at):
    kernel = Vanishing(at)
    registry = LoopRegistry("wrenn-abc123", tmp_path / "lock", kernel)
    try:
        use(registry, kernel, base, "dm-0")
        use(registry, kernel, base, "dm-1")
        assert kernel.made == 2
        assert registry.users() == ()
    finally:
        kernel.close()
