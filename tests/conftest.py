"""Fixtures that every tier shares: the leak check, and images built once for all tests."""

import os

import pytest
from hypothesis import settings

from leaks import leak_check  # noqa: F401 - a fixture

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items):
    """A tier is where a test lies: directories and markers can't disagree."""
    for item in items:
        parts = item.path.parts
        if "root" in parts:
            item.add_marker(pytest.mark.root)
        if "vm" in parts and "unit" not in parts and "contract" not in parts:
            item.add_marker(pytest.mark.vm)
        if "e2e" in parts:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def layout():
    """The tests' own data directory, with kernel and images in it; built when they are not."""
    from built_images import prepared_layout

    return prepared_layout()


@pytest.fixture(scope="session")
def images(layout):
    from wrennd.storage.images import ImageStore

    return ImageStore(layout)


@pytest.fixture(scope="session")
def kernel(images):
    return images.kernel()


@pytest.fixture(scope="session")
def base_image(images):
    return images.find("base")


@pytest.fixture(scope="session")
def busybox_image(images):
    return images.find("busybox")
