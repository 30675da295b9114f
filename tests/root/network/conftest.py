"""The world of the network tests: made once for a module, or anew for a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from leaks import LeakCheck
from root.network.topology import World, world
from wrennd.core.ids import new_installation_id


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """For tests that leave it as they found it."""
    check = LeakCheck()
    with world(tmp_path_factory.mktemp("world")) as made:
        yield made
    check.finish()


@pytest.fixture
def own_world(leak_check: LeakCheck, tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def installation(leak_check: LeakCheck, tmp_path: Path) -> str:
    """An installation of this test's own, watched: nothing of it may be left."""
    made = new_installation_id()
    leak_check.watch(made, tmp_path)
    return made
