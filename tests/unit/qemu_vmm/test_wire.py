import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from wrennd.qemu_vmm import wire
from wrennd.qemu_vmm.wire import Continue, Method, ParseError, Parser, Request, absolute_path

PUT = b"PUT /logger HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
PATHS = st.from_regex(r"/[a-z/?=%-]{0,20}", fullmatch=True)
BODIES = st.binary(max_size=300)
HEADERS = st.lists(
    st.sampled_from(
        ("Accept: */*", "host: localhost", "X-Y:  z ", "EXPECT: 100-continue", "Expect: x")
    ),
    max_size=4,
)
REQUESTS = st.lists(st.tuples(st.sampled_from(list(Method)), PATHS, BODIES, HEADERS), max_size=5)
TAILS = st.sampled_from(
    (b"", b"POST / HTTP/1.1\r\n", b"GET /\r\n", b"GET / HTTP/1.1\r\nx\r\n", b"a" * 2000)
)


def encode(method, path, body, headers):
    lines = [f"{method} {path} HTTP/1.1", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def feed_in_pieces(data, cuts):
    """All events up to the first error; what follows one depends on how the bytes came."""
    parser, events = Parser(), []
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(bounds):
        events += parser.feed(data[start:end])
        if events and isinstance(events[-1], ParseError):
            break
    return events


@given(REQUESTS, TAILS, st.lists(st.integers(min_value=0), max_size=12))
def test_how_bytes_are_cut_does_not_matter(requests, tail, cuts):
    data = b"".join(encode(*request) for request in requests) + tail
    whole = Parser().feed(data)
    assert feed_in_pieces(data, cuts) == whole
    found = [event for event in whole if isinstance(event, Request)]
    assert found == [
        Request(method=method, path=path, body=body or None) for method, path, body, _ in requests
    ]
    assert isinstance(whole[-1], ParseError) if tail else True


@given(st.binary(max_size=3000), st.lists(st.integers(min_value=0), max_size=5))
def test_any_bytes_are_survived(data, cuts):
    for event in feed_in_pieces(data, cuts):
        assert isinstance(event, Request | Continue | ParseError)


def test_after_a_wrong_request_line_the_next_bytes_begin_anew():
    parser = Parser()
    (error,) = parser.feed(b"bad\r\n" + PUT)
    assert isinstance(error, ParseError)
    assert parser.feed(PUT) == [Request(method=Method.PUT, path="/logger", body=b"{}")]


def test_after_a_wrong_header_the_next_bytes_are_headers():
    parser = Parser()
    (error,) = parser.feed(b"GET / HTTP/1.1\r\nbad\r\n" + PUT)
    assert isinstance(error, ParseError)
    assert parser.feed(b"good: 1\r\n\r\n") == [Request(method=Method.GET, path="/")]


def test_a_line_has_1024_bytes_with_its_end():
    longest = b"GET /" + b"a" * (1022 - 5 - 9) + b" HTTP/1.1\r\n\r\n"
    assert isinstance(Parser().feed(longest)[0], Request)
    assert isinstance(Parser().feed(b"GET /a" + longest[5:])[0], ParseError)


def test_the_limit_of_a_body_is_inclusive():
    assert isinstance(Parser(max_body=2).feed(PUT)[0], Request)
    (error,) = Parser(max_body=1).feed(PUT)
    assert error == ParseError(
        text="Request payload with size 2 is larger than the limit of 1 allowed by server."
    )


def test_continue_comes_with_the_version_of_the_request():
    (event,) = Parser().feed(b"PUT / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
    assert isinstance(event, Continue)
    assert wire.interim(event).startswith(b"HTTP/1.0 100 \r\nServer: Firecracker API\r\n")


def test_paths_of_uris():
    assert absolute_path("/a//b?c") == "/a//b?c"
    assert absolute_path("http://localhost:80/a") == "/a"
    assert absolute_path("http://localhost") == ""
    assert absolute_path("http://") == ""
    assert absolute_path("a/b") == ""


def test_encodings_that_refuse_identity():
    for value in ("identity;q=0", "gzip, *;q=0"):
        (error,) = Parser().feed(f"GET / HTTP/1.1\r\nAccept-Encoding: {value}\r\n".encode())
        assert isinstance(error, ParseError)
    data = b"GET / HTTP/1.1\r\nAccept-Encoding: identity, *;q=0\r\n\r\n"
    assert isinstance(Parser().feed(data)[0], Request)


def test_a_full_server_says_how_long_its_text_is():
    head, _, body = wire.SERVER_FULL.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == {"error": "Too many open connections"}
