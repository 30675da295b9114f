"""Requests that are nearly right: taken or refused, whatever was done to them."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vmm_corpus import BODIES, requests
from wrennd.qemu_vmm import document, routes, schema
from wrennd.qemu_vmm.faults import Fault
from wrennd.qemu_vmm.json_reader import JsonError
from wrennd.qemu_vmm.phases import TABLE, Call
from wrennd.qemu_vmm.wire import Continue, ParseError, Parser, Request, interim

PIECES = st.sampled_from(
    (
        b"\r\n",
        b" ",
        b"\0",
        b'"',
        b"{",
        b"}",
        b"[",
        b",",
        b":",
        b"\\u",
        b"-",
        b"1e9",
        b"null",
        b"\xff",
    )
)
CHANGES = st.lists(
    st.tuples(st.integers(min_value=0), st.integers(0, 9), st.binary(max_size=4) | PIECES),
    max_size=4,
)
STREAMS = st.lists(st.tuples(st.sampled_from(requests()), CHANGES), max_size=4)
CUTS = st.lists(st.integers(min_value=0), max_size=6)


def changed(data, changes):
    """`data` with some bytes replaced, at places taken modulo its length."""
    for place, length, piece in changes:
        at = place % (len(data) + 1)
        data = data[:at] + piece + data[at + length :]
    return data


def understood(request):
    try:
        action = routes.parse(request)
    except Fault:
        return
    key = action if isinstance(action, Call) else type(action)
    assert key in TABLE or isinstance(action, routes.Unsupported)
    routes.deprecation(action)


@given(STREAMS, CUTS)
def test_any_stream_is_answered(stream, cuts):
    data = b"".join(changed(*item) for item in stream)
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    parser = Parser()
    for start, end in pairwise(bounds):
        for event in parser.feed(data[start:end]):
            match event:
                case Request():
                    understood(event)
                case ParseError():
                    assert event.to_response().startswith(b"HTTP/1.1 400 \r\n")
                case Continue():
                    assert interim(event).startswith(b"HTTP/1.")


CONFIG = {
    "drives": [BODIES[6][2]],
    "boot-source": BODIES[5][2],
    "machine-config": BODIES[9][2],
    "balloon": BODIES[1][2],
    "mmds-config": BODIES[13][2],
    "vsock": {"any": [1]},
}


@given(CHANGES)
def test_any_configuration_is_read_or_refused_with_a_place(changes):
    error = error_of(changed(json.dumps(CONFIG, indent=1).encode(), changes))
    assert error is None or error.is_placed


def error_of(data):
    try:
        schema.decode(document.DOCUMENT, data)
    except JsonError as error:
        return error
    return None
