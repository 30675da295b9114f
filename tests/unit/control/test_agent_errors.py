"""What the host agent sends is what the control plane reads: both directions, held together."""

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from wrennd.control.agent_errors import NotConnected, to_error
from wrennd.core.errors import Error, InvalidInput, NoCapacity, Unavailable
from wrennd.host.agent.errors import to_connect


@pytest.mark.parametrize("code", sorted(Error.by_code))
def test_every_error_comes_through(code):
    sent = Error.by_code[code]("something is so", hint="do this")
    found = to_error(to_connect(sent))
    assert (type(found), str(found), found.hint) == (type(sent), "something is so", "do this")


def caused(code, cause):
    error = ConnectError(code, "text")
    error.__cause__ = cause
    return error


def test_nobody_listens():
    found = to_error(caused(Code.UNAVAILABLE, NotConnected("refused")))
    assert isinstance(found, Unavailable)
    assert found.is_unsent


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELED])
def test_nobody_knows_whether_it_was_done(code):
    found = to_error(caused(code, ConnectionResetError()))
    assert isinstance(found, Unavailable)
    assert not found.is_unsent


def test_what_we_were_sending_broke():
    ours = NoCapacity("full")
    assert to_error(caused(Code.UNAVAILABLE, ours)) is ours


def test_errors_of_the_protocol():
    assert isinstance(to_error(ConnectError(Code.INVALID_ARGUMENT, "no")), InvalidInput)
    assert to_error(ConnectError(Code.UNIMPLEMENTED, "no")).code == "internal"
