"""Rows: compare-and-set, pages, keys, idempotency, events, templates, usage. All of it over a
real SQLite, and over a real PostgreSQL.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import bindparam, text

import postgresql
from wrennd.control import mirror
from wrennd.control.states import RowState
from wrennd.control.store import (
    events,
    hosts,
    idempotency,
    keys,
    sandboxes,
    schema,
    templates,
    usage,
)
from wrennd.control.store.database import Database
from wrennd.control.store.engines import make_engine
from wrennd.control.store.migrate import migrate
from wrennd.core.errors import AlreadyExists, InvalidInput, NotFound, Unavailable, WrongState
from wrennd.gen.hostagent import hostagent_pb as pb

S = RowState


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request, tmp_path_factory):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('store') / 'test.db'}"
        return
    with postgresql.serving() as server:
        yield server.url


@pytest.fixture(scope="module")
def made(url):
    migrate(url)
    migrate(url)  # which finds nothing to do
    database = Database(url)
    database.run_here(lambda c: hosts.ensure(c, "local"))
    for project in ("default", "other"):
        database.run_here(lambda c, p=project: keys.ensure_project(c, p))
    yield database
    database.close()


@pytest.fixture
def connection(made):
    """One transaction for each test, rolled back."""
    with made._engine.connect() as connection:
        yield connection
        connection.rollback()


def row(sandbox_id="a" * 20, state="running", **more):
    seen = pb.Sandbox(id=sandbox_id, state=state, template="base", tier="kvm", revision=1)
    found = mirror.adopted(seen, project="default", host="local", now_ms=1000)
    return replace(found, **more)


def test_the_migrations_make_the_schema(connection):
    context = MigrationContext.configure(connection)
    assert compare_metadata(context, schema.metadata) == []


def test_a_database_of_an_older_version_keeps_its_rows(tmp_path):
    url = f"sqlite:///{tmp_path / 'old.db'}"
    migrate(url, "0001")
    engine = make_engine(url)
    old = row().to_columns()
    del old["source"]
    with engine.begin() as connection:
        hosts.ensure(connection, "local")
        keys.ensure_project(connection, "default")
        names = ", ".join(old)
        marks = ", ".join(f":{name}" for name in old)
        types = [bindparam(name, type_=schema.sandboxes.c[name].type) for name in old]
        insert = text(f"INSERT INTO sandboxes ({names}) VALUES ({marks})")
        connection.execute(insert.bindparams(*types), old)
    migrate(url)
    with engine.begin() as connection:
        assert sandboxes.get(connection, old["id"]) == row()
    engine.dispose()


def test_a_row_comes_back_as_it_went(connection):
    sent = row(labels={"a": "b"}, versions={"kernel_version": "6"}, expires_ms=7)
    sandboxes.add(connection, sent)
    assert sandboxes.get(connection, sent.id) == sent
    with pytest.raises(AlreadyExists):
        sandboxes.add(connection, sent)


def test_compare_and_set(connection):
    sandboxes.add(connection, row())
    first = sandboxes.move(connection, row(), S.PAUSING)
    assert (first.state, first.revision) == (S.PAUSING, 2)
    assert sandboxes.move(connection, row(), S.PAUSING) is None
    assert sandboxes.mirror(connection, row(), S.ERROR) is None
    with pytest.raises(AssertionError):
        sandboxes.move(connection, first, S.STARTING)
    sandboxes.refresh(connection, row(), {"disk_bytes": 9})
    assert sandboxes.get(connection, row().id) == first
    sandboxes.refresh(connection, first, {"disk_bytes": 9})
    assert sandboxes.get(connection, row().id) == replace(first, disk_bytes=9)


def test_a_claim(connection):
    sandboxes.add(connection, row())
    before, now = sandboxes.begin(connection, "default", row().id, {S.RUNNING}, S.PAUSING)
    assert (before.state, now.state) == (S.RUNNING, S.PAUSING)
    with pytest.raises(WrongState, match="pausing"):
        sandboxes.begin(connection, "default", row().id, {S.RUNNING}, S.PAUSING)
    with pytest.raises(NotFound):
        sandboxes.begin(connection, "other", row().id, {S.RUNNING}, S.PAUSING)


def test_pages(connection):
    for number, letter in enumerate("abcde"):
        labels = {"even": str(number % 2 == 0)}
        sandboxes.add(
            connection, row(letter * 20, labels=labels, created_ms=1000 + number // 2 * 10)
        )
    sandboxes.add(connection, row("f" * 20, state="paused"))
    stopped = row("g" * 20)
    sandboxes.add(connection, replace(stopped, state=S.STOPPED))

    def ids(**more):
        wanted = sandboxes.Filter(project="default", **more)
        return "".join(each.id[0] for each in sandboxes.list_page(connection, wanted))

    assert ids() == "edcfba"
    assert ids(limit=2) == "ed"
    assert ids(limit=2, after=(1010, "d" * 20)) == "cf"
    assert ids(states=frozenset({S.STOPPED, S.PAUSED})) in ("gf", "fg")
    assert ids(labels={"even": "True"}) == "eca"
    assert ids(labels={"even": "True"}, limit=1, after=(1020, "e" * 20)) == "c"
    assert ids(template="none") == ""
    assert sandboxes.stopped_of(connection, [each * 20 for each in "ag"]) == {"g" * 20}


def test_keys(connection):
    key = keys.new_key()
    made = keys.add(connection, "default", "mine", key)
    assert keys.find(connection, key) == made
    assert keys.add(connection, "default", "again", key) == made
    assert keys.find(connection, keys.new_key()) is None
    with pytest.raises(NotFound):
        keys.revoke(connection, "other", made.id)
    keys.revoke(connection, "default", made.id)
    assert keys.find(connection, key) is None
    assert keys.is_known(connection, key)
    first = keys.list_all(connection, "default")[0].revoked_ms
    keys.revoke(connection, None, made.id)
    assert keys.list_all(connection, "default")[0].revoked_ms == first
    stored = connection.execute(schema.keys.select()).mappings().one()
    assert key not in str(dict(stored))


def test_idempotency(connection):
    assert idempotency.claim(connection, "default", "k", b"body", "first") == "first"
    assert idempotency.claim(connection, "default", "k", b"body", "second") == "first"
    assert idempotency.claim(connection, "other", "k", b"body", "third") == "third"
    with pytest.raises(AlreadyExists):
        idempotency.claim(connection, "default", "k", b"else", "second")
    idempotency.release(connection, "default", "first")
    assert idempotency.claim(connection, "default", "k", b"else", "second") == "second"


def test_events_are_bounded(connection):
    for number in range(events.KEPT + 5):
        events.add(connection, "default", "a" * 20, "create", {"n": number})
    events.add(connection, "default", "b" * 20, "create", {})
    found = events.list_newest(connection, "a" * 20, 1000)
    assert [event.data["n"] for event in found] == list(range(204, 4, -1))
    assert len(events.list_newest(connection, "b" * 20, 1000)) == 1


def template(host_name, kind="snapshot", **more):
    seen = pb.Template(name=host_name, kind=kind, vcpus=1, size_bytes=5)
    return replace(mirror.template_of(seen, project="default", host="local"), **more)


def test_templates_follow_the_host(connection):
    image, snapshot = template("base", "image"), template("snap")
    templates.sync(connection, "local", [image, snapshot])
    renamed = template("snap.x", project="other", name="snap")
    templates.put(connection, renamed)
    assert templates.free_host_name(connection, "snap") != "snap"
    assert templates.free_host_name(connection, "new") == "new"
    assert templates.find(connection, "default", "snap") == snapshot
    assert templates.find(connection, "other", "snap") == renamed
    assert templates.find(connection, "other", "base") == image
    larger = replace(snapshot, size_bytes=6)
    templates.sync(connection, "local", [image, larger, template("snap.x")])
    assert templates.find(connection, "default", "snap") == larger
    assert templates.find(connection, "other", "snap") == renamed
    templates.sync(connection, "local", [image])
    assert [each.name for each in templates.list_all(connection, "default")] == ["base"]
    with pytest.raises(NotFound):
        templates.get(connection, "other", "snap")


def test_usage(connection):
    sandboxes.add(connection, row(vcpus=2, mem_mib=512))
    sandboxes.add(connection, row("b" * 20, state="paused"))
    counts = usage.count(connection)
    assert {each.state: each.count for each in counts} == {S.RUNNING: 1, S.PAUSED: 1}
    usage.note(connection, 600_000, counts)
    sandboxes.add(connection, row("c" * 20, vcpus=1, mem_mib=512))
    usage.note(connection, 601_000, usage.count(connection))
    (minute,) = usage.list_since(connection, "default", 0, 100)
    assert minute == usage.Minute(minute=10, running=2, vcpus=3, mem_mib=1024)
    usage.note(connection, 600_000 + usage.MINUTE_MS * (usage.KEPT_MINUTES + 2), [])
    assert minute not in usage.list_since(connection, "default", 0, 100)


def at_once(work, count=8):
    """Results of `work(number)`, all begun at the same moment."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def test_of_many_at_once_each_sees_what_those_before_it_did(made):
    """What reads and then writes; each of these would lose or break without an order."""
    made.run_here(lambda c: sandboxes.add(c, row("r" * 20)))

    def change(number):
        def work(connection):
            keys.ensure_project(connection, "raced")
            templates.put(connection, template("raced", size_bytes=number))
            name = templates.free_host_name(connection, "raced")
            templates.put(connection, template(name, name=f"raced-{number}"))
            usage.note(connection, 600_000, [replace(COUNT, project=f"p{number}")])
            events.add(connection, "raced", "r" * 20, "create", {"n": number})
            known = sandboxes.get(connection, "r" * 20)
            assert sandboxes.mirror(connection, known, S.RUNNING) is not None
            return idempotency.claim(connection, "raced", "key", b"body", f"result-{number}")

        return made.run_here(work)

    try:
        assert len(set(at_once(change))) == 1
        assert made.run_here(lambda c: sandboxes.get(c, "r" * 20)).revision == 9
    finally:
        made.run_here(lambda c: [c.execute(schema.events.delete())])
        made.run_here(lambda c: [c.execute(schema.sandboxes.delete())])
        made.run_here(lambda c: [c.execute(schema.templates.delete())])
        made.run_here(lambda c: [c.execute(schema.idempotency.delete())])


COUNT = usage.Count(project="p", state=S.RUNNING, count=1, vcpus=1, mem_mib=1)


def test_one_claim_wins(made):
    made.run_here(lambda c: sandboxes.add(c, row("w" * 20)))

    def claim(_):
        try:
            made.run_here(lambda c: sandboxes.begin(c, "default", "w" * 20, {S.RUNNING}, S.PAUSING))
        except WrongState:
            return False
        return True

    try:
        assert sum(at_once(claim)) == 1
    finally:
        made.run_here(lambda c: [c.execute(schema.sandboxes.delete())])


def test_a_reader_waits_for_nobody_and_sees_one_moment(made):
    reader = made._reader
    with made._engine.begin() as writing, reader.begin() as reading:
        before = len(keys.list_all(reading, "default"))
        keys.add(writing, "default", "late", keys.new_key())
        writing.commit()
        assert len(keys.list_all(reading, "default")) == before


def test_any_text_can_be_written_and_looked_for(connection):
    """What a guest says reaches `error`: a row that can't be written would stop reconciling."""
    long = "é\uffff\u202e" * 9000
    sandboxes.add(connection, row(error=f"a\0{long}", labels={"a": "\0"}))
    found = sandboxes.get(connection, "a" * 20)
    assert (found.error, found.labels) == (f"a\ufffd{long}", {"a": "\0"})
    said = events.add(connection, "default", "a" * 20, "pause", {"error": "a\0"})
    assert events.list_newest(connection, "a" * 20, 1) == [said]
    assert sandboxes.get(connection, "\0") is None
    assert templates.find(connection, "default", "\0") is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "sqlite://",
        "sqlite:///:memory:",
        "nosuch://h/x",
        "mysql://h/x",
        "postgresql+asyncpg://h/x",
    ],
)
def test_what_is_no_database(url):
    with pytest.raises(InvalidInput):
        make_engine(url)


def test_a_database_of_a_newer_version(tmp_path):
    url = f"sqlite:///{tmp_path / 'newer.db'}"
    migrate(url)
    database = Database(url)
    database.run_here(lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num='9'"))
    database.close()
    with pytest.raises(InvalidInput, match="not of this version"):
        migrate(url)


def test_a_database_that_is_not_there(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(Unavailable) as refused:
        database.run_here(hosts.list_all)
    assert refused.value.is_unsent
    assert not (tmp_path / "none.db").exists()
    database.close()


def test_a_server_that_is_not_there(tmp_path):
    url = f"postgresql://nobody@/none?host={tmp_path}"
    with pytest.raises(Unavailable):
        migrate(url)
    database = Database(url)
    with pytest.raises(Unavailable):
        database.run_here(hosts.list_all)
    database.close()
