"""Bodies that are too long or too slow, without a server."""

import asyncio

import pytest
from fastapi import HTTPException

from wrennd.control.limits import JSON_BYTES, BodyLimit, limit_of


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/sandboxes", JSON_BYTES),
        ("PUT", "/v1/sandboxes/x/files", None),
        ("POST", "/v1/capsules/x/files/stream/write", None),
        ("POST", "/v1/capsules/x/files/write", 101_048_576),
        ("POST", "/v1/capsules/x/files/read", JSON_BYTES),
    ],
)
def test_limits_by_route(method, path, expected):
    assert limit_of(method, path) == expected


CHUNKED = ((b"transfer-encoding", b"chunked"),)


def serve(messages, headers=CHUNKED, idle_s=10.0):
    """What an application gets of a body, and what was read of it before it answered."""
    left = list(messages)
    sent = []

    async def receive():
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    async def send(message):
        sent.append((message["type"], len(left)))

    async def app(scope, receive, send):
        total = 0
        try:
            while True:
                message = await receive()
                total += len(message.get("body", b""))
                if not message.get("more_body"):
                    break
        except HTTPException as error:
            total = error.status_code
        await send({"type": "http.response.start"})
        sent.append(total)

    scope = {"type": "http", "method": "POST", "path": "/v1/x", "headers": list(headers)}
    asyncio.run(BodyLimit(app, idle_s=idle_s)(scope, receive, send))
    return sent


def piece(size, more=True):
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


def test_what_fits():
    assert serve([piece(1000), piece(24, more=False)]) == [("http.response.start", 0), 1024]


def test_what_does_not_fit_is_read_to_its_end_before_the_answer():
    half = piece(JSON_BYTES // 2 + 1)
    assert serve([half, half, half, piece(1, more=False)]) == [("http.response.start", 0), 413]


def test_what_is_announced_to_be_too_long_is_not_waited_for():
    length = [(b"content-length", str(JSON_BYTES + 1).encode())]
    sent = serve([piece(JSON_BYTES + 1, more=False)], length)
    assert sent == [("http.response.start", 0), 413]


def test_what_stops_coming():
    assert serve([piece(10)], idle_s=0.01) == [("http.response.start", 0), 408]
