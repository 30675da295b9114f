"""`wrenn run` in the lab: a guest on nested KVM, and nothing left of it."""

import pytest

from wrenn_command import wrenn

HELLO = ("run", "--template", "busybox", "--memory", "128", "--", "echo", "hello")


@pytest.fixture
def data_dir(layout, leak_check):
    leak_check.watch(layout.installation, layout.sandboxes)
    return layout.data_dir


@pytest.mark.smoke
def test_hello_with_what_is_there(data_dir):
    said = wrenn(data_dir, *HELLO)
    assert (said.returncode, said.stdout) == (0, "hello\n"), said.stderr


def test_hello_on_each(data_dir, lab_vmm):
    said = wrenn(data_dir, *HELLO, env={"WRENN_VMM": lab_vmm})
    assert (said.returncode, said.stdout) == (0, "hello\n"), said.stderr
