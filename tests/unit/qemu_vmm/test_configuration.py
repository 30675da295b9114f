import os

import pytest

from wrennd.qemu_vmm.configuration import Configuration, command_line_problem
from wrennd.qemu_vmm.faults import Fault
from wrennd.qemu_vmm.resources import (
    BootSource,
    CacheType,
    Drive,
    Entropy,
    MachineUpdate,
    RateLimiter,
    TokenBucket,
)


@pytest.fixture
def configuration():
    before = descriptors()
    made = Configuration()
    yield made
    made.close()
    assert descriptors() == before


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208


def drive(path, name="a", **changes):
    values = {
        "drive_id": name,
        "partuuid": None,
        "is_root_device": False,
        "cache_type": CacheType.UNSAFE,
        "is_read_only": None,
        "path_on_host": os.fspath(path),
        "rate_limiter": None,
        "io_engine": None,
        "socket": None,
    }
    return Drive(**{**values, **changes})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def test_what_was_named_is_what_is_used(configuration, file):
    configuration.set_boot_source(BootSource(kernel_image_path=os.fspath(file)))
    file.unlink()
    file.write_bytes(b"another")
    assert os.read(configuration.boot.kernel_fd, 100) == b"content"


def test_a_refused_boot_source_changes_nothing(configuration, file):
    good = BootSource(kernel_image_path=os.fspath(file), boot_args="good")
    configuration.set_boot_source(good)
    for bad in (
        BootSource(kernel_image_path="/nothing"),
        BootSource(kernel_image_path=os.fspath(file), initrd_path="/nothing"),
        BootSource(kernel_image_path=os.fspath(file), initrd_path=os.fspath(file), boot_args="\0"),
        BootSource(kernel_image_path="a\0b"),
        BootSource(kernel_image_path="/proc"),
    ):
        with pytest.raises(Fault, match=r"^Boot source error: "):
            configuration.set_boot_source(bad)
    assert configuration.boot.source == good


def test_a_new_boot_source_lets_the_old_one_go(configuration, file):
    source = BootSource(kernel_image_path=os.fspath(file), initrd_path=os.fspath(file))
    configuration.set_boot_source(source)
    count = len(descriptors())
    for _ in range(3):
        configuration.set_boot_source(source)
    assert len(descriptors()) == count


def test_drives_keep_their_place_when_replaced(configuration, file):
    for name in ("a", "b", "c"):
        configuration.insert_drive(drive(file, name))
    configuration.insert_drive(drive(file, "b", partuuid="x"))
    assert [(d.drive.drive_id, d.drive.partuuid) for d in configuration.drives] == [
        ("a", None),
        ("b", "x"),
        ("c", None),
    ]
    configuration.insert_drive(drive(file, "c", is_root_device=True))
    assert [d.drive.drive_id for d in configuration.drives] == ["c", "b", "a"]


def test_a_read_only_drive_is_opened_read_only(configuration, file):
    configuration.insert_drive(drive(file, is_read_only=True))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(configuration.drives[0].fd, b"x")


@pytest.mark.parametrize("path", ["/dev/null", "/proc", "/nothing", "a\0b"])
def test_what_is_no_disk(configuration, path):
    with pytest.raises(Fault, match="Error manipulating the backing file: "):
        configuration.insert_drive(drive(path, is_read_only=True))
    assert configuration.drives == []


def test_a_refused_machine_changes_nothing(configuration):
    configuration.update_machine(MachineUpdate(vcpu_count=4, smt=True))
    for update in (
        MachineUpdate(vcpu_count=3),
        MachineUpdate(vcpu_count=255),
        MachineUpdate(mem_size_mib=0),
    ):
        with pytest.raises(Fault, match=r"^Machine config error: "):
            configuration.update_machine(update)
    assert configuration.machine.vcpu_count == 4


def test_operations_of_the_entropy_device_can_not_be_limited(configuration):
    bucket = TokenBucket(size=1, one_time_burst=None, refill_time=1)
    with pytest.raises(Fault, match="Entropy config error: a rate limit on operations"):
        configuration.set_entropy(Entropy(rate_limiter=RateLimiter(bandwidth=None, ops=bucket)))
    configuration.set_entropy(Entropy(rate_limiter=RateLimiter(bandwidth=bucket, ops=None)))


def test_command_lines():
    assert command_line_problem("a" * 2047) == ""
    assert command_line_problem("a" * 2048)
    assert command_line_problem(" " * 9 + "a" * 2047 + "\n") == ""
    assert command_line_problem("é" * 1024)
    assert command_line_problem("tab\t é") == ""
    assert command_line_problem("a\0b")
