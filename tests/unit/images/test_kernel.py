import pytest

from elf_files import module
from wrennd.core.errors import ImageBroken
from wrennd.images import kernel, recipe

MODULES = {
    "virtio_ring": module(),
    "virtio": module("virtio_ring"),
    "virtio_mmio": module("virtio", "virtio_ring"),
    "failover": module(),
    "net_failover": module("failover"),
    "virtio_net": module("virtio_ring", "virtio", "net-failover"),
    "button": module(),
}


def test_modules_load_after_what_they_depend_on_and_once():
    ordered = kernel.load_order(MODULES, ["virtio_mmio", "virtio_net", "button"])
    assert list(ordered) == [
        "virtio_ring",
        "virtio",
        "virtio_mmio",
        "failover",
        "net_failover",
        "virtio_net",
        "button",
    ]


def test_a_module_that_the_package_lacks_is_named():
    with pytest.raises(ImageBroken, match="virtio_blk"):
        kernel.load_order(MODULES, ["virtio_blk"])


def test_modules_that_need_each_other_are_refused_instead_of_recursed_into():
    with pytest.raises(ImageBroken, match="module a"):
        kernel.load_order({"a": module("b"), "b": module("a")}, ["a"])


def test_the_initrd_is_the_same_for_the_same_parts_and_names_every_module():
    parts = "6.1", b"busybox", MODULES
    first, second = kernel.make_initrd(*parts), kernel.make_initrd(*parts)
    assert first == second
    assert f"modprobe -a {' '.join(MODULES)} ||".encode() in first
    assert b"@MODULES@" not in first
    for name in MODULES:
        assert f"lib/modules/6.1/{name}.ko\0".encode() in first


def test_the_recipe_can_be_read():
    assert recipe.kernel().package == "linux-image-cloud-amd64"
    assert "virtio_blk" in recipe.kernel().modules
