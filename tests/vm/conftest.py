"""A chain of fixtures: parts -> spec -> machine_booted. A test pins only what it is about."""

import pytest

from wrennd.core.config import Config
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxSpec
from wrennd.core.timings import Timings
from wrennd.host.local import LocalSandboxes
from wrennd.host.machine import Machine


@pytest.fixture
def sandboxes(layout, leak_check):
    leak_check.watch(layout.installation, layout.sandboxes)
    return LocalSandboxes(Config(data_dir=layout.data_dir), print)


@pytest.fixture
def spec():
    return SandboxSpec(id=new_sandbox_id(), image="busybox", mem_mib=256)


@pytest.fixture
def parts(sandboxes, spec):
    return sandboxes.parts(spec)


@pytest.fixture
def machine(spec, parts):
    booted = Machine.boot(spec, parts, Timings())
    yield booted
    booted.close()
