"""The HTTP parser and the reply encoder, on bytes."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.envd import http
from wrennd.envd.http import END, ParseError, Request, RequestParser


def events(*pieces: bytes) -> list:
    """What comes out, with the pieces of each body put together."""
    parser = RequestParser()
    found: list = []
    for piece in pieces:
        parser.feed(piece)
        while (event := parser.next_event()) is not None:
            if isinstance(event, Request):
                found.append((event.method, event.target, event.headers))
            elif isinstance(event, bytes) and isinstance(found[-1], bytes):
                found[-1] += event
            else:
                found.append(event)
    return found


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


token = st.text("abcXYZ-_.!", min_size=1, max_size=12)
value = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)
body = st.binary(max_size=300)


@st.composite
def requests(draw):
    """A request's bytes and the events that it stands for."""
    method, content = draw(token), draw(body)
    target = "/" + draw(st.text("abc/?=&%20", max_size=20))
    names = draw(st.lists(token.map(lambda t: "x-" + t.lower()), max_size=4, unique=True))
    headers = {name: draw(value) for name in names}
    lines = [f"{method} {target} HTTP/1.1"] + [f"{k}:  {v} " for k, v in headers.items()]
    if draw(st.booleans()):
        headers["transfer-encoding"] = "chunked"
        cuts = draw(st.lists(st.integers(0, 300), max_size=4))
        pieces = [piece for piece in split(content, cuts) if piece]
        payload = b"".join(b"%X;x=y\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\na: b\r\n\r\n"
        lines.append("Transfer-Encoding: chunked")
    else:
        headers["content-length"] = str(len(content))
        payload = content
        lines.append(f"Content-Length: {len(content)}")
    data = "\r\n".join(lines).encode() + b"\r\n\r\n" + payload
    return data, [(method, target, headers), *([content] if content else []), END]


@given(st.lists(requests(), min_size=1, max_size=3), st.lists(st.integers(0, 3000), max_size=12))
def test_any_split_of_pipelined_requests_gives_the_same_events(many, cuts):
    data = b"".join(raw for raw, _ in many)
    wanted = [event for _, each in many for event in each]
    assert events(*split(data, cuts)) == wanted


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_noise_is_refused_or_waited_for_and_never_crashes(data, cuts):
    status = 200
    try:
        events(*split(data, cuts))
    except ParseError as error:
        status = error.status
    assert status in http.REASONS


def test_byte_by_byte():
    data = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    assert events(*(bytes((b,)) for b in data)) == [
        ("POST", "/", {"content-length": "3"}),
        b"abc",
        END,
    ]


def parse(head: bytes) -> Request:
    parser = RequestParser()
    parser.feed(head + b"\r\n\r\n")
    event = parser.next_event()
    assert isinstance(event, Request)
    return event


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"GET / HTTP/1.1", True),
        (b"GET / HTTP/1.1\r\nConnection: keep-alive, Close", False),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive", True),
    ],
)
def test_keep_alive(head, keep_alive):
    assert parse(head).keep_alive is keep_alive


def test_path_and_query():
    request = parse(b"GET /a%20b/%C3%BC?path=x%2Fy+z&path=no&empty=&%zz=1 HTTP/1.1")
    assert request.path == "/a b/ü"
    query = http.parse_query(request.query)
    assert query == {"path": "x/y z", "empty": "", "%zz": "1"}


@pytest.mark.parametrize(
    ("target", "origin"),
    [
        (b"http://host/x?y", "/x?y"),
        (b"http://host", "/"),
        (b"HTTP://host?y=/", "/?y=/"),
        (b"*", "*"),
    ],
)
def test_absolute_targets(target, origin):
    assert parse(b"GET " + target + b" HTTP/1.1").target == origin


def test_repeated_headers_are_joined():
    assert parse(b"GET / HTTP/1.1\r\nA: 1\r\na: 2").headers == {"a": "1,2"}
    assert parse(b"GET / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0").headers == {
        "content-length": "0"
    }


def test_expectation():
    assert parse(b"GET / HTTP/1.1\r\nExpect: 100-Continue").expects_continue
    assert not parse(b"GET / HTTP/1.0\r\nExpect: 100-continue").expects_continue


def test_limits_hold_before_the_end_is_seen():
    parser = RequestParser()
    parser.feed(b"GET / HTTP/1.1\r\nA: " + b"x" * http.MAX_HEAD_BYTES)
    with pytest.raises(ParseError) as caught:
        parser.next_event()
    assert caught.value.status == 431


def test_trailers_are_bounded():
    parser = RequestParser()
    parser.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
    assert isinstance(parser.next_event(), Request)
    parser.feed(b"a: b\r\n" * http.MAX_HEAD_BYTES)
    with pytest.raises(ParseError) as caught:
        parser.next_event()
    assert caught.value.status == 431


def test_idle_and_in_head():
    parser = RequestParser()
    assert parser.is_idle
    parser.feed(b"GE")
    assert parser.next_event() is None
    assert not parser.is_idle
    assert parser.buffered == 2


@given(st.binary(max_size=100))
def test_percent_decode_never_fails(data):
    http.percent_decode(data.decode("latin-1"))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_percent_decode_undoes_encoding(text):
    encoded = "".join(f"%{byte:02x}" for byte in text.encode())
    assert http.percent_decode(encoded) == text


def test_replies():
    assert http.reply_head(204, []) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert http.reply_head(599, [("A", "b")]) == b"HTTP/1.1 599 Unknown\r\nA: b\r\n\r\n"
    assert http.chunk((b"x" * 16, b"y")) == b"11\r\n" + b"x" * 16 + b"y\r\n"
