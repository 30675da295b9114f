"""RPC errors become ours, in one place."""

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from wrennd.core.errors import (
    AlreadyExists,
    CommandNotExecutable,
    CommandNotFound,
    DeadlineExceeded,
    GuestFailed,
    InvalidInput,
    NoCapacity,
    NotFound,
    VmmFailed,
)
from wrennd.host.envd_rpc import translate

EXPECTED = {
    Code.INVALID_ARGUMENT: InvalidInput,
    Code.UNAUTHENTICATED: InvalidInput,
    Code.FAILED_PRECONDITION: InvalidInput,
    Code.PERMISSION_DENIED: InvalidInput,
    Code.NOT_FOUND: NotFound,
    Code.ALREADY_EXISTS: AlreadyExists,
    Code.RESOURCE_EXHAUSTED: NoCapacity,
    Code.DEADLINE_EXCEEDED: DeadlineExceeded,
}


@pytest.mark.parametrize("code", list(Code))
def test_every_code_becomes_an_error_of_ours(code):
    found = translate(ConnectError(code, "words"))
    assert type(found) is EXPECTED.get(code, GuestFailed)
    assert "words" in str(found)


def test_a_start_tells_missing_from_not_executable():
    missing = translate(ConnectError(Code.NOT_FOUND, "x"), at_start=True)
    assert type(missing) is CommandNotFound
    refused = translate(ConnectError(Code.PERMISSION_DENIED, "x"), at_start=True)
    assert type(refused) is CommandNotExecutable


@pytest.mark.parametrize(
    ("cause", "kind"), [(VmmFailed("gone"), VmmFailed), (OSError(5, "io"), GuestFailed)]
)
def test_what_went_wrong_below_comes_through(cause, kind):
    error = ConnectError(Code.UNAVAILABLE, "x")
    error.__cause__ = cause
    assert type(translate(error)) is kind
