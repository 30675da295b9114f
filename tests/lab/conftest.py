"""The tests of the lab: with each VMM that it has, and what all of them start from."""

import pytest

from lab_vmms import lab_vmm, pytest_generate_tests  # noqa: F401 - a fixture and a hook
from wrennd.core.config import Config
from wrennd.host.local import LocalSandboxes


@pytest.fixture
def config(layout):
    """Disks are device-mapper's, whatever `auto` takes."""
    return Config(data_dir=layout.data_dir, overlay="dm")


@pytest.fixture
def sandboxes(config, layout, leak_check, lab_vmm):  # noqa: F811 - the fixture
    """This machine's sandboxes, on the VMM of the moment."""
    leak_check.watch(layout.installation, layout.sandboxes)
    return LocalSandboxes(config, print)
