"""An operation runs to its end whoever leaves; the end of the agent waits for it."""

import asyncio
import contextlib
import dataclasses
import logging
import threading

import pytest

from wrennd.core.errors import HostUnsuitable, InvalidInput, NotFound, WrongState
from wrennd.host.agent.operations import WORKERS, Kind, Operations, Wanted


def wanted(key="", content=b"", kind=Kind.STARTS, sandbox="a"):
    return Wanted(method="Test", sandbox=sandbox, kind=kind, key=key, content=content)


def test_a_caller_that_leaves_stops_nothing():
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work():
        begun.set()
        go_on.wait()
        done.set()

    async def play():
        operations = Operations()
        call = asyncio.create_task(operations.run(wanted(), work))
        await asyncio.to_thread(begun.wait)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        assert not done.is_set()
        go_on.set()
        assert await operations.close(10) == 0

    asyncio.run(play())
    assert done.is_set()


def test_two_with_one_key_share_one_run():
    runs = []

    async def play():
        operations = Operations()

        def work():
            runs.append(1)
            return len(runs)

        both = [operations.run(wanted("key"), work) for _ in range(2)]
        assert await asyncio.gather(*both) == [1, 1]
        assert await operations.run(wanted("key"), lambda: 7) == 1
        with pytest.raises(InvalidInput):
            await operations.run(wanted("key", b"other"), lambda: 7)
        assert await operations.run(wanted(), lambda: 7) == 7
        await operations.close(10)

    asyncio.run(play())
    assert runs == [1]


def test_a_failure_is_told_and_logged_and_frees_its_key(caplog):
    def fail():
        raise NotFound("gone")

    async def play():
        operations = Operations()
        with pytest.raises(NotFound):
            await operations.run(wanted("key"), fail)
        assert await operations.run(wanted("key", b"other"), lambda: 7) == 7
        await operations.close(10)

    with caplog.at_level(logging.INFO):
        asyncio.run(play())
    (failed,) = [line for line in caplog.records if line.getMessage() == "failed"]
    assert (failed.code, failed.method, failed.sandbox) == ("not_found", "Test", "a")


def test_one_kind_keeps_no_other_waiting():
    go_on = threading.Event()

    async def play():
        operations = Operations()
        busy = [
            asyncio.create_task(operations.run(wanted(), go_on.wait))
            for _ in range(WORKERS[Kind.STARTS] + 1)
        ]
        assert await operations.run(wanted(kind=Kind.ENDS), lambda: "ended") == "ended"
        assert await operations.call(lambda: "seen", Kind.LOOKS) == "seen"
        go_on.set()
        await asyncio.gather(*busy)
        await operations.close(10)

    asyncio.run(play())


def test_none_is_begun_while_the_agent_ends():
    go_on = threading.Event()

    async def play():
        operations = Operations()
        hung = asyncio.create_task(operations.run(wanted(), go_on.wait))
        await asyncio.sleep(0)
        assert await operations.close(0.01) == 1
        with pytest.raises(HostUnsuitable):
            await operations.run(wanted(), lambda: 7)
        go_on.set()
        await hung

    asyncio.run(play())


def test_a_start_that_has_not_begun_is_revoked_by_the_end():
    go_on, made = threading.Event(), []

    async def play():
        operations = Operations()
        busy = [
            asyncio.create_task(operations.run(wanted(sandbox="other"), go_on.wait))
            for _ in range(WORKERS[Kind.STARTS])
        ]
        start = asyncio.create_task(operations.run(wanted(), lambda: made.append("start")))
        await asyncio.sleep(0)
        last = dataclasses.replace(wanted(kind=Kind.ENDS), is_last=True)
        end = asyncio.create_task(operations.run(last, lambda: made.append("end")))
        with pytest.raises(WrongState, match="destroyed"):
            await start
        go_on.set()
        await asyncio.gather(end, *busy)
        await operations.close(10)

    asyncio.run(play())
    assert made == ["end"]


def test_an_end_waits_for_a_start_that_has_begun():
    begun, go_on, made = threading.Event(), threading.Event(), []

    def work():
        begun.set()
        go_on.wait()
        made.append("start")

    async def play():
        operations = Operations()
        start = asyncio.create_task(operations.run(wanted(), work))
        await asyncio.to_thread(begun.wait)
        last = dataclasses.replace(wanted(kind=Kind.ENDS), is_last=True)
        end = asyncio.create_task(operations.run(last, lambda: made.append("end")))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(start, end)
        await operations.close(10)

    asyncio.run(play())
    assert made == ["start", "end"]
