"""Each error of ours goes out whole; what nobody foresaw says nothing of itself."""

import asyncio
import logging

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError

from wrennd.core.errors import Error
from wrennd.gen.hostagent.hostagent_pb import ErrorDetail
from wrennd.host.agent.errors import Translating, to_connect


@pytest.mark.parametrize("kind", [Error, *Error.by_code.values()], ids=lambda kind: kind.code)
def test_every_error_has_its_detail(kind):
    sent = to_connect(kind("it is so", hint="do that"))
    detail = sent.details[0].value(ErrorDetail)
    assert isinstance(detail, ErrorDetail)
    assert (detail.code, detail.message, detail.hint) == (kind.code, "it is so", "do that")
    assert sent.code is not Code.UNKNOWN


async def unary(error):
    async def call(_request, _ctx):
        raise error

    await Translating().intercept_unary(call, None, None)


async def stream(error):
    async def call(_request, _ctx):
        yield 1
        raise error

    async for _ in Translating().intercept_server_stream(call, None, None):
        pass


@pytest.mark.parametrize("kind", [unary, stream])
def test_a_surprise_is_logged_and_not_told(kind, caplog):
    with caplog.at_level(logging.ERROR), pytest.raises(ConnectError) as raised:
        asyncio.run(kind(ZeroDivisionError("a secret")))
    assert raised.value.code is Code.INTERNAL
    assert "secret" not in str(raised.value)
    assert "a secret" in caplog.text


def test_an_error_of_the_protocol_stays_what_it_is():
    with pytest.raises(ConnectError) as raised:
        asyncio.run(unary(ConnectError(Code.OUT_OF_RANGE, "too far")))
    assert raised.value.code is Code.OUT_OF_RANGE
