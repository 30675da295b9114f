"""Namespaces made by a child, named, and removed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from leaks import LeakCheck
from wrennd.core.deadline import Deadline
from wrennd.core.ids import new_installation_id
from wrennd.linux import links, netns, process
from wrennd.linux.rtnetlink import Rtnetlink

pytestmark = pytest.mark.root


@pytest.fixture
def path(leak_check: LeakCheck) -> Iterator[Path]:
    installation = new_installation_id()
    leak_check.watch(installation)
    with netns.named(f"wrenn-{installation}-abc") as made:
        yield made


def test_what_comes_back_belongs_to_the_new_namespace(path: Path) -> None:
    with netns.Making(path, {"ipv4/ip_forward": 1}) as making:
        inside = making.finish(Deadline.after(60))
    os.close(inside.tun)
    with Rtnetlink(inside.route) as there, Rtnetlink() as here:
        assert [link.name for link in links.links(there)] == ["lo"]
        assert len(links.links(here)) > 1
    said = process.run([*netns.enter(path), "sysctl", "-n", "net.ipv4.ip_forward"], timeout_s=60)
    assert said.stdout == "1\n"


def test_a_failure_is_told_in_the_childs_words(path: Path) -> None:
    said = r"wrenn-.*-abc could not be made: .*no_such_setting"
    with (
        netns.Making(path, {"ipv4/no_such_setting": 1}) as making,
        pytest.raises(OSError, match=said),
    ):
        making.finish(Deadline.after(60))


def test_giving_up_early_ends_the_child(path: Path) -> None:
    making = netns.Making(path, {})
    making.close()
    making.close()


def test_a_deadline_that_is_over(path: Path) -> None:
    with netns.Making(path, {}) as making, pytest.raises(TimeoutError):
        making.finish(Deadline.after(0))


def test_removing_what_is_not_there(path: Path) -> None:
    netns.remove(path)
    netns.remove(path)
    assert path.name not in netns.names()


def test_a_name_is_given_once(path: Path) -> None:
    with pytest.raises(FileExistsError), netns.named(path.name):
        pass
    assert path.exists()
