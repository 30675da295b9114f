"""Which key `wrenn key revoke` means."""

from datetime import UTC, datetime

import pytest

from wrennd.cli.key import _one
from wrennd.client.values import Key
from wrennd.core.errors import InvalidInput, NotFound

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD = Key(id="a" * 20, name="ci", project="default", revoked_at=NOW)
NEW = Key(id="b" * 20, name="ci", project="default")
MINE = Key(id="c" * 20, name="mine", project="default")


def test_an_id_is_that_key_even_when_it_is_revoked():
    assert _one([OLD, NEW, MINE], OLD.id) is OLD


def test_a_name_is_the_one_that_counts():
    assert _one([OLD, NEW, MINE], "ci") is NEW


def test_a_name_that_none_has_is_refused():
    with pytest.raises(NotFound, match="no key 'nope'"):
        _one([OLD, MINE], "nope")
    with pytest.raises(NotFound):
        _one([OLD, MINE], "ci")


def test_a_name_that_several_have_is_not_guessed():
    with pytest.raises(InvalidInput, match="2 keys"):
        _one([NEW, Key(id="d" * 20, name="ci", project="default")], "ci")
