"""Envelopes, codes and headers of the Connect protocol, on bytes."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.envd import connect
from wrennd.envd.connect import EnvelopeReader, RpcError

messages = st.lists(st.binary(max_size=200), max_size=6)


@given(messages, st.lists(st.integers(0, 1500), max_size=10))
def test_any_split_gives_the_same_messages(wanted, cuts):
    data = b"".join(connect.envelope(one) for one in wanted)
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    reader = EnvelopeReader()
    found = [m for a, b in itertools.pairwise(at) for m in reader.feed(data[a:b])]
    reader.close()
    assert found == wanted


@given(st.binary(max_size=100))
def test_noise_is_refused_or_waited_for(data):
    reader = EnvelopeReader(max_message_bytes=50)
    status = 200
    try:
        reader.feed(data)
        reader.close()
    except RpcError as error:
        status = error.status
    assert status in (200, 400, 429, 501)


def test_a_long_message_is_refused_by_its_head_alone():
    reader = EnvelopeReader(max_message_bytes=10)
    with pytest.raises(RpcError) as caught:
        reader.feed(b"\0\0\0\0\x0b")
    assert caught.value.code == "resource_exhausted"


def test_an_envelope():
    assert connect.envelope(b"ab") == b"\0\0\0\0\x02ab"


def test_the_end_of_a_stream():
    assert connect.end_envelope(None) == b"\x02\0\0\0\x02{}"
    data = connect.end_envelope(RpcError("not_found", 'no "ü"'))
    assert json.loads(data[5:]) == {"error": {"code": "not_found", "message": 'no "ü"'}}


@pytest.mark.parametrize("code", sorted(connect.HTTP_STATUS))
def test_every_code_has_a_status_and_a_body(code):
    error = RpcError(code, "x")
    assert 400 <= error.status < 600
    assert json.loads(connect.error_body(error)) == {"code": code, "message": "x"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("", None), ("0", None), ("1", 0.001), ("1500", 1.5)]
)
def test_timeout(text, seconds):
    assert connect.timeout_s({"connect-timeout-ms": text}) == seconds


@pytest.mark.parametrize("text", ["-1", "1.5", " 1", "²", "1" * 11])
def test_bad_timeout(text):
    with pytest.raises(RpcError):
        connect.timeout_s({"connect-timeout-ms": text})


def test_headers():
    connect.check_headers({}, stream=True)
    fine = {"connect-protocol-version": "1", "content-encoding": "identity"}
    connect.check_headers(fine, stream=False)
    for stream, name in ((True, "connect-content-encoding"), (False, "content-encoding")):
        with pytest.raises(RpcError) as caught:
            connect.check_headers({name: "gzip"}, stream=stream)
        assert caught.value.code == "unimplemented"
