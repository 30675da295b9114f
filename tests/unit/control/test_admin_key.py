"""The first key, and the file that it is in."""

import pytest

from wrennd.control.admin_key import ensure_admin_key
from wrennd.control.store import keys
from wrennd.control.store.database import Database
from wrennd.control.store.migrate import migrate


@pytest.fixture
def database(tmp_path):
    url = f"sqlite:///{tmp_path / 'test.db'}"
    migrate(url)
    made = Database(url)
    yield made
    made.close()


def test_the_first_start_makes_one(database, tmp_path, capsys):
    path = tmp_path / "etc" / "admin.key"
    ensure_admin_key(database, path)
    key = path.read_text().strip()
    assert keys.KEY.fullmatch(key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert database.run_here(lambda c: keys.find(c, key)).name == "admin"
    ensure_admin_key(database, path)
    assert path.read_text().strip() == key
    assert key not in "".join(capsys.readouterr())


def test_a_key_that_is_there_counts_again_in_a_new_database(database, tmp_path):
    path = tmp_path / "admin.key"
    key = keys.new_key()
    path.write_text(key + "\n")
    ensure_admin_key(database, path)
    assert path.read_text().strip() == key
    assert database.run_here(lambda c: keys.find(c, key))


@pytest.mark.parametrize("left", ["nonsense", ""])
def test_what_is_no_key_is_replaced(database, tmp_path, left):
    path = tmp_path / "admin.key"
    path.write_text(left)
    ensure_admin_key(database, path)
    assert keys.KEY.fullmatch(path.read_text().strip())


def test_a_revoked_key_does_not_come_back(database, tmp_path):
    path = tmp_path / "admin.key"
    ensure_admin_key(database, path)
    old = path.read_text().strip()
    found = database.run_here(lambda c: keys.find(c, old))
    database.run_here(lambda c: keys.revoke(c, None, found.id))
    ensure_admin_key(database, path)
    new = path.read_text().strip()
    assert new != old
    assert database.run_here(lambda c: keys.find(c, old)) is None
    assert database.run_here(lambda c: keys.find(c, new))
