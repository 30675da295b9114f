"""What is decided about each difference between the database and a host: a table."""

from dataclasses import replace

import pytest

from wrennd.control import mirror
from wrennd.control.reconcile import (
    GONE,
    NEVER_MADE,
    Adopt,
    Destroy,
    Move,
    Refresh,
    Report,
    decide,
)
from wrennd.control.states import RowState
from wrennd.gen.hostagent import hostagent_pb as pb

ID = "a" * 20
NOW = 1_000_000_000
GRACE = 30_000
S = RowState


def sandbox(state="running", **more):
    facts = {
        "id": ID,
        "state": state,
        "template": "base",
        "tier": "kvm",
        "vcpus": 1,
        "mem_mib": 512,
        "address": "198.18.0.1" if state == "running" else "",
        "revision": 5,
        "is_kept": True,
        "created_unix_ms": NOW,
        "expiry": pb.Expiry(),
    }
    return pb.Sandbox(**{**facts, **more})


def row(state="running", **more):
    """A row that agrees with `sandbox(state)`."""
    found = mirror.adopted(sandbox(state), project="p", host="local", now_ms=NOW - 1)
    return replace(found, state=S(state), **more)


def report(*sandboxes, **more):
    facts = {"now_ms": NOW, "grace_ms": GRACE}
    return Report(sandboxes={each.id: each for each in sandboxes}, **{**facts, **more})


def one(rows, seen):
    actions = decide(rows, seen)
    assert len(actions) <= 1
    return actions[0] if actions else None


@pytest.mark.parametrize("state", ["running", "paused", "error", "pausing", "resuming"])
def test_nothing_to_do_where_both_agree(state):
    assert one([row(state)], report(sandbox(state))) is None


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("running", "paused"),
        ("running", "pausing"),
        ("running", "error"),
        ("paused", "running"),
        ("starting", "running"),
        ("starting", "error"),
        ("pausing", "paused"),
        ("pausing", "running"),
        ("snapshotting", "running"),
        ("snapshotting", "paused"),
        ("resuming", "running"),
        ("resuming", "paused"),
        ("resuming", "error"),
        ("error", "running"),
        ("missing", "running"),
        ("missing", "paused"),
    ],
)
def test_the_hosts_word_counts(was, now):
    found = one([row(was)], report(sandbox(now, revision=6, cause="expiry")))
    assert isinstance(found, Move)
    assert (found.to, found.reason) == (S(now), "expiry")
    assert found.changes["host_revision"] == 6


@pytest.mark.parametrize("state", [s for s in S if s not in (S.STOPPED, S.MISSING)])
def test_what_an_operation_works_on_is_left_to_it(state):
    for seen in (report(busy={ID}), report(sandbox("paused", revision=9), busy={ID})):
        assert one([row(state)], seen) is None


def test_an_old_word_does_not_count():
    newer = row("paused", host_revision=6)
    assert one([newer], report(sandbox("running", revision=5))) is None


@pytest.mark.parametrize(
    "state", ["running", "paused", "error", "pausing", "snapshotting", "resuming"]
)
def test_what_the_host_does_not_know_is_missing(state):
    found = one([row(state)], report())
    assert isinstance(found, Move)
    assert (found.to, found.reason) == (S.MISSING, GONE)
    assert found.changes == {"address": "", "expires_ms": None, "error": GONE}


def test_a_paused_one_is_not_missing_for_not_running():
    assert one([row("paused")], report(sandbox("paused"))) is None


def test_missing_stays_missing():
    assert one([row("missing")], report()) is None


def test_one_that_was_never_made_is_given_time():
    young = row("starting", host_revision=0, updated_ms=NOW - GRACE + 1)
    assert one([young], report()) is None
    old = replace(young, updated_ms=NOW - GRACE)
    found = one([old], report())
    assert isinstance(found, Move)
    assert (found.to, found.reason) == (S.STOPPED, NEVER_MADE)


@pytest.mark.parametrize("state", ["running", "paused", "starting", "missing", "error"])
def test_what_the_host_ended_by_itself_is_not_lost(state):
    found = one([row(state)], report(gone={ID: "expiry"}))
    assert isinstance(found, Move)
    assert (found.to, found.reason, found.changes["cause"]) == (S.STOPPED, "expiry", "expiry")


def test_destroying_goes_on_until_it_is_gone():
    doomed = row("destroying")
    assert one([doomed], report(sandbox("running"))) == Destroy(sandbox_id=ID, row=doomed)
    assert one([doomed], report()).to is S.STOPPED


def test_what_changes_by_itself():
    found = one([row()], report(sandbox(active_unix_ms=NOW, disk_bytes=7)))
    assert found == Refresh(row=row(), changes={"active_ms": NOW, "disk_bytes": 7})


@pytest.mark.parametrize("state", ["running", "paused", "error", "pausing"])
def test_one_that_was_made_without_us_is_adopted(state):
    seen = sandbox(state)
    assert one([], report(seen)) == Adopt(sandbox=seen)


@pytest.mark.parametrize("state", ["starting", "destroying"])
def test_one_that_is_on_its_way_is_waited_for(state):
    assert one([], report(sandbox(state))) is None


def test_a_commands_own_is_left_alone():
    assert one([], report(sandbox(is_kept=False), since={ID: 0})) is None


@pytest.mark.parametrize("more", [{"state": ""}, {"state": "nonsense"}])
def test_what_has_no_valid_record_is_removed_after_a_while(more):
    seen = sandbox(**more)
    assert one([], report(seen)) is None
    assert one([], report(seen, since={ID: NOW - GRACE + 1})) is None
    assert one([], report(seen, since={ID: NOW - GRACE})) == Destroy(sandbox_id=ID)


def test_what_was_destroyed_and_is_there_again_is_removed():
    seen = report(sandbox(), stopped={ID}, since={ID: NOW - GRACE})
    assert one([], seen) == Destroy(sandbox_id=ID)
    assert one([], replace(seen, since={ID: NOW})) is None


def test_an_invalid_record_of_one_that_we_know_changes_nothing():
    assert one([row()], report(sandbox("nonsense"))) is None


def test_each_sandbox_by_itself():
    rows = [row(id=letter * 20) for letter in "abc"]
    seen = report(sandbox(id="b" * 20), sandbox(id="d" * 20), busy={"c" * 20})
    kinds = {
        getattr(action, "row", None) and action.row.id[0]: type(action).__name__
        for action in decide(rows, seen)
    }
    assert kinds == {"a": "Move", None: "Adopt"}
