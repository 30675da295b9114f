"""The copy of a database that is written to meanwhile."""

import sqlite3
from contextlib import closing

import pytest

from wrennd.core.errors import Error
from wrennd.server.keeping import copy_database, copy_key


def test_a_copy_is_of_one_moment_and_needs_no_log(tmp_path):
    source, target = tmp_path / "wrenn.db", tmp_path / "copy.db"
    with closing(sqlite3.connect(source, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t (x)")
        writer.execute("INSERT INTO t VALUES (1)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (2)")
        copy_database(source, target)
        writer.execute("COMMIT")
    assert sorted(path.name for path in tmp_path.glob("copy.db*")) == ["copy.db"]
    with closing(sqlite3.connect(target)) as copied:
        assert copied.execute("SELECT x FROM t").fetchall() == [(1,)]
        assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert target.stat().st_mode & 0o777 == 0o600


def test_what_is_no_database(tmp_path):
    (tmp_path / "wrenn.db").write_bytes(b"not a database, by any means" * 100)
    with pytest.raises(Error, match="can't be copied"):
        copy_database(tmp_path / "wrenn.db", tmp_path / "copy.db")


@pytest.mark.parametrize("copy", [copy_database, copy_key])
def test_a_link_in_its_place_is_not_followed(tmp_path, copy):
    (tmp_path / "secret").write_text("not the server's")
    (tmp_path / "there").symlink_to("secret")
    with pytest.raises(Error, match="can't be copied"):
        copy(tmp_path / "there", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_key_is_copied_for_its_owner_alone(tmp_path):
    (tmp_path / "there").write_text("key")
    copy_key(tmp_path / "there", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "key"
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
