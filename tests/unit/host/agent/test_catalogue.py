"""Records are read when they were written, and only then."""

import dataclasses
import json

import pytest

from wrennd.core.errors import NotFound
from wrennd.core.states import State
from wrennd.host.agent.catalogue import Catalogue, Unreadable
from wrennd.host.record import Journal, Owner, Record
from wrennd.storage.layout import Layout

FIRST, SECOND = "a" * 20, "b" * 20


@pytest.fixture
def layout(tmp_path):
    return Layout.prepare(tmp_path / "data")


def keep(layout, sandbox_id, created="2026-01-01T00:00:00+00:00", state=State.RUNNING):
    paths = layout.sandbox(sandbox_id)
    paths.data.mkdir()
    found = Record(
        id=sandbox_id,
        owner=Owner.INSTALLATION,
        state=state,
        template="base",
        vcpus=1,
        mem_mib=128,
        created=created,
        revision=4,
    )
    journal = Journal(paths, found)
    journal.update()
    return journal


def test_the_oldest_come_first_and_what_is_gone_does_not(layout):
    catalogue = Catalogue(layout)
    assert catalogue.all() == []
    keep(layout, FIRST, created="2026-01-02T00:00:00+00:00")
    second = keep(layout, SECOND)
    layout.sandbox("c" * 20).data.mkdir()  # its record is still to come
    assert [one.id for one in catalogue.all()] == [SECOND, FIRST]
    second.paths.record.unlink()
    assert [one.id for one in catalogue.all()] == [FIRST]
    with pytest.raises(NotFound):
        catalogue.get(SECOND)


def test_a_record_is_read_once_until_it_is_written(layout):
    catalogue = Catalogue(layout)
    journal = keep(layout, FIRST)
    before = catalogue.get(FIRST)
    assert catalogue.get(FIRST) is before
    journal.cause = "expiry"
    journal.update(state=State.PAUSING)
    after = catalogue.get(FIRST)
    assert (after.state, after.revision, after.cause) == (State.PAUSING, 5, "expiry")
    journal.update(pending=7)
    assert catalogue.get(FIRST).revision == 5
    assert catalogue.live() == [catalogue.get(FIRST)]


def test_what_can_not_be_read_is_seen(layout):
    catalogue = Catalogue(layout)
    journal = keep(layout, FIRST)
    journal.paths.record.write_text("{}")
    found = catalogue.get(FIRST)
    assert isinstance(found, Unreadable)
    assert "version" in found.why
    assert catalogue.records() == []


def test_a_record_of_before_has_no_revision():
    found = Record(
        id=FIRST, owner=Owner.INSTALLATION, state=State.PAUSED, template="t", vcpus=1, mem_mib=128
    )
    old = {
        name: value
        for name, value in dataclasses.asdict(found).items()
        if name not in ("revision", "cause", "expiry", "expiry_set_ms")
    }
    again = Record.decode(json.dumps(old).encode())
    assert (again.revision, again.cause, again.expiry.seconds) == (0, "", 0)
    assert Record.decode(found.encode()) == found
