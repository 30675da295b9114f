"""Threads send, callers take: in order, bounded, and both ends can leave."""

import asyncio
import contextlib
import threading

import pytest

from wrennd.core.deadline import Deadline
from wrennd.core.errors import HostUnsuitable, NoCapacity, NotFound
from wrennd.host.agent.streams import CallerLeft, Inlet, Streams


async def taken(stream):
    return [item async for item in stream]


def test_what_is_sent_comes_in_order_and_ends():
    def work(outlet):
        for number in range(100):
            outlet.send(number)

    async def play():
        return await taken(Streams().run(work, capacity=3))

    assert asyncio.run(play()) == list(range(100))


def test_an_error_comes_behind_what_was_sent():
    def work(outlet):
        outlet.send(1)
        raise NotFound("gone")

    async def play():
        async with contextlib.aclosing(Streams().run(work, capacity=3)) as stream:
            assert await anext(stream) == 1
            with pytest.raises(NotFound):
                await anext(stream)

    asyncio.run(play())


def test_a_slow_caller_holds_the_thread_up():
    sent = []
    is_full = threading.Event()

    def work(outlet):
        for number in range(50):
            if number == 2:
                is_full.set()
            outlet.send(number)
            sent.append(number)

    async def play():
        async with contextlib.aclosing(Streams().run(work, capacity=2)) as stream:
            assert await anext(stream) == 0
            await asyncio.to_thread(is_full.wait)
            # One was taken, two wait: the fourth is not sent.
            assert len(sent) <= 3
            return [item async for item in stream]

    assert asyncio.run(play()) == list(range(1, 50))


def test_a_caller_that_leaves_wakes_the_thread():
    left, ended = threading.Event(), threading.Event()

    def work(outlet):
        outlet.on_leave(left.set)
        try:
            outlet.send(1)
            left.wait()
            outlet.send(2)
        except CallerLeft:
            ended.set()
            raise

    async def play():
        streams = Streams()
        async with contextlib.aclosing(streams.run(work, capacity=1)) as stream:
            assert await anext(stream) == 1
        assert await asyncio.to_thread(streams.join, Deadline.after(60)) == 0

    asyncio.run(play())
    assert ended.is_set()


def test_closing_ends_all_and_takes_no_more():
    begun = threading.Event()

    def work(outlet):
        woken = threading.Event()
        outlet.on_leave(woken.set)
        begun.set()
        woken.wait()

    async def play():
        streams = Streams()
        following = asyncio.create_task(taken(streams.run(work, capacity=1)))
        await asyncio.to_thread(begun.wait)
        streams.close()
        with pytest.raises(HostUnsuitable):
            await following
        with pytest.raises(HostUnsuitable):
            await taken(streams.run(work, capacity=1))
        assert await asyncio.to_thread(streams.join, Deadline.after(60)) == 0

    asyncio.run(play())


def test_there_is_a_limit():
    class Few(Streams):
        MAX = 1

    def work(outlet):
        woken = threading.Event()
        outlet.on_leave(woken.set)
        outlet.send(1)
        woken.wait()

    async def play():
        streams = Few()
        async with contextlib.aclosing(streams.run(work, capacity=1)) as stream:
            await anext(stream)
            with pytest.raises(NoCapacity):
                await taken(streams.run(work, capacity=1))

    asyncio.run(play())


def test_content_goes_to_a_thread_bounded():
    async def play():
        inlet = Inlet(2)
        asked = []
        is_third = asyncio.Event()

        async def chunks():
            for number in range(20):
                asked.append(number)
                if number == 2:
                    is_third.set()
                yield bytes([number])

        feeding = asyncio.create_task(inlet.take(chunks()))
        await is_third.wait()
        assert asked == [0, 1, 2]
        found = await asyncio.to_thread(lambda: list(inlet))
        await feeding
        return found

    assert asyncio.run(play()) == [bytes([number]) for number in range(20)]


def test_content_that_breaks_off_is_an_error_in_the_thread():
    async def play():
        inlet = Inlet(2)

        async def chunks():
            yield b"one"
            raise NotFound("lost")

        feeding = asyncio.create_task(inlet.take(chunks()))
        with pytest.raises(NotFound):
            await asyncio.to_thread(lambda: list(inlet))
        await feeding

    asyncio.run(play())
