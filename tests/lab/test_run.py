"""`wrenn run` in the lab: a guest on nested KVM, and nothing left of it."""

import pytest

from wrenn_command import wrenn

pytestmark = pytest.mark.smoke


@pytest.fixture
def data_dir(layout, leak_check):
    leak_check.watch(layout.installation, layout.sandboxes)
    return layout.data_dir


def test_hello_on_kvm(data_dir):
    said = wrenn(data_dir, "run", "--template", "busybox", "--memory", "128", "--", "echo", "hello")
    assert (said.returncode, said.stdout) == (0, "hello\n"), said.stderr
