import pytest

from wrenn_command import wrenn


@pytest.fixture
def data_dir(layout, leak_check):
    """The tests' data directory; whatever the test leaves behind fails it."""
    leak_check.watch(layout.installation, layout.sandboxes)
    return layout.data_dir


@pytest.fixture
def run(data_dir):
    """`wrenn run` with the small image, unless the test names another."""

    def call(*args, template="busybox", **kwargs):
        return wrenn(data_dir, "run", "--template", template, *args, **kwargs)

    return call
