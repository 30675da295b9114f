"""What only a look at the host itself tells."""

import subprocess
import sys

import pytest

from wrennd.host import doctor

pytestmark = pytest.mark.root
ASK = "from wrennd.host import doctor; print(doctor.userns_problem())"


def test_user_namespaces_are_tried():
    assert doctor.userns_problem() == ""


def test_a_host_without_user_namespaces_is_told():
    """Their limit is a user namespace's own, so one below ours can be such a host."""
    script = f"echo 0 > /proc/sys/user/max_user_namespaces && exec {sys.executable} -c '{ASK}'"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "unshare" in done.stdout
