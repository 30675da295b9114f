"""Fixtures that every tier shares: the leak check, and images built once for all tests."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from leaks import leak_check  # noqa: F401 - a fixture

pytest_plugins = ["tiers"]

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("local", deadline=None)
# Inside the lab host everything takes ten times as long.
settings.register_profile(
    "lab", derandomize=True, deadline=None, print_blob=True, max_examples=5, stateful_step_count=12
)
IS_LAB = bool(os.environ.get("WRENN_LAB"))
settings.load_profile("lab" if IS_LAB else "ci" if os.environ.get("CI") else "local")


# A shell makes its background jobs ignore it, and what they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _leaves_nothing(request):
    """Every test that may make something on the host ends with the leak check."""
    directory = request.path.relative_to(Path(__file__).parent).parts[0]
    # What tests of a shared world start belongs to that, which has a check of its own at its end;
    # so does what contract tests start in a server that they share.
    if directory in ("root", "vm", "e2e", "lab") and "shared_world" not in request.fixturenames:
        request.getfixturevalue("leak_check")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """An error's hint says more than its sentence: the guest's console, for instance."""
    report = yield
    if call.excinfo is not None and (hint := getattr(call.excinfo.value, "hint", "")):
        report.sections.append(("hint", str(hint)))
    return report


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
