"""Connections of this machine led to a port, straight or by a proxy that is told where."""

import asyncio
import contextlib
import socket

import pytest

from wrennd.client.forwarding import Forwarding
from wrennd.client.http import Server

BOX = "a" * 20


def way(base_url, port=80):
    return Forwarding(Server(base_url=base_url, api_key="e2b_0"), BOX, "127.0.0.1", port)


async def exchanged(forwarding, sent):
    """What comes back for what is sent through it."""
    server = await asyncio.start_server(forwarding.accepted, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(sent)
        writer.write_eof()
        back = await reader.read()
        writer.close()
        return back


async def shouting(reader, writer):
    data = await reader.read()
    writer.write(data.upper())
    await writer.drain()
    writer.close()


def test_on_the_server_s_machine_any_protocol_passes():
    async def run():
        async with await asyncio.start_server(shouting, "127.0.0.1", 0) as there:
            port = there.sockets[0].getsockname()[1]
            return await exchanged(way("http://127.0.0.1:7070", port), b"no http \0 at all")

    assert asyncio.run(run()) == b"NO HTTP \0 AT ALL"


def test_its_end_while_something_passes_is_no_failure():
    """`wrenn forward` ends by Ctrl-C, whatever is connected."""
    reported = []

    async def run(there):
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        to_there = way("http://127.0.0.1:7070", there.getsockname()[1])
        async with await asyncio.start_server(to_there.accepted, "127.0.0.1", 0) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            led, _ = await loop.sock_accept(there)
            open_ones = asyncio.all_tasks() - {asyncio.current_task()}
            for each in open_ones:
                each.cancel()
            await asyncio.gather(*open_ones, return_exceptions=True)
            led.close()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    with socket.create_server(("127.0.0.1", 0)) as there:
        there.setblocking(False)
        asyncio.run(run(there))
    assert reported == []


def test_a_closed_port_ends_the_connection():
    assert asyncio.run(exchanged(way("http://127.0.0.1:7070", 1), b"x")) == b""


@pytest.mark.parametrize("upgrades", [False, True])
def test_by_the_proxy_a_request_says_where_it_belongs(upgrades):
    extra = b"Upgrade: websocket\r\n" if upgrades else b""
    head = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n" + extra + b"\r\n"
    made = way("http://example.org", 8080).headed(head).decode()
    assert made.startswith("GET /a HTTP/1.1\r\n")
    assert made.endswith("\r\n\r\n")
    assert f"\r\nE2b-Sandbox-Id: {BOX}\r\nE2b-Sandbox-Port: 8080\r\n" in made
    assert ("Connection: close" in made) is not upgrades
    assert ("keep-alive" in made) is upgrades


def test_a_head_that_never_ends_is_not_kept():
    with contextlib.suppress(ConnectionError):
        way("http://example.org").headed(b"x" * (1 << 20))
        pytest.fail("it was taken")
