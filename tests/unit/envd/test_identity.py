"""Names and numbers that a sandbox's id stands for."""

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.envd.identity import assume, check_sandbox_id, hosts_for, machine_id, random_uuid

ids = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=20, max_size=20)


@given(st.sets(ids, min_size=2, max_size=20))
def test_each_id_has_a_machine_id_of_its_own(names):
    found = {machine_id(name) for name in names}
    assert len(found) == len(names)
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in found)


def test_a_machine_id_stays_what_it_is():
    assert machine_id("a" * 20) == machine_id("a" * 20)


def test_boot_ids_are_random_uuids():
    found = {random_uuid() for _ in range(100)}
    assert len(found) == 100
    assert {uuid.UUID(one).version for one in found} == {4}
    assert all(str(uuid.UUID(one)) == one for one in found)


@pytest.mark.parametrize("good", ["a", "0", "a" * 63, "x" * 20])
def test_ids(good):
    check_sandbox_id(good)


@pytest.mark.parametrize("bad", ["", "A", "a-b", "a b", "a\n", "ü", "²", "a" * 64, "../x"])
def test_what_is_no_id(bad):
    with pytest.raises(ValueError, match="not the id"):
        check_sandbox_id(bad)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("127.0.0.1 localhost\n127.0.1.1 old\n", "127.0.0.1 localhost\n127.0.1.1 new\n"),
        ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n127.0.1.1 new\n"),
        ("127.0.0.1 localhost", "127.0.0.1 localhost\n127.0.1.1 new\n"),
        ("", "127.0.1.1 new\n"),
        ("127.0.1.1 old.example old # us\n", "127.0.1.1 old.example new # us\n"),
        ("127.0.1.1 old new\n", "127.0.1.1 new\n"),
        ("127.0.0.1 new\n", "127.0.0.1 new\n"),
        ("#127.0.1.1 old\n", "#127.0.1.1 old\n127.0.1.1 new\n"),
        ("# new\n", "# new\n127.0.1.1 new\n"),
        # What others have written about the former name is theirs.
        ("10.0.0.1 old\n", "10.0.0.1 old\n127.0.1.1 new\n"),
        (
            "127.0.0.1\tlocalhost  x\n\n::1 old\n",
            "127.0.0.1\tlocalhost  x\n\n::1 old\n127.0.1.1 new\n",
        ),
    ],
)
def test_hosts(before, after):
    assert hosts_for(before, "old", "new") == after
    assert hosts_for(after, "old", "new") == after


def test_an_empty_tree_is_filled_as_far_as_it_goes(tmp_path):
    troubles = assume(str(tmp_path), "a" * 20)
    assert len(troubles) == 3
    assert (tmp_path / "run/wrenn/sandbox-id").read_text() == "a" * 20 + "\n"


def test_what_is_too_large_is_left_alone(tmp_path):
    for folder in ("etc", "proc/sys/kernel", "usr/lib/wrenn"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/hostname").write_text("old\n")
    hosts = tmp_path / "etc/hosts"
    hosts.write_bytes(b"#" * (9 << 20))
    (trouble,) = assume(f"{tmp_path}/", "a" * 20)
    assert "too large" in trouble
    assert hosts.stat().st_size == 9 << 20
    assert (tmp_path / "proc/sys/kernel/hostname").read_text() == "a" * 20
