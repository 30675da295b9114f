"""The same key gets the same answer; it is not for two calls; it is not kept for ever."""

import asyncio

import pytest

from wrennd.core.errors import InvalidInput
from wrennd.host.agent.keys import KEPT_S, MAX_KEY_LENGTH, MAX_KEYS, Keys


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def answer(value):
    if isinstance(value, Exception):
        raise value
    return value


async def done(keys, key, value, content=b"content"):
    task = asyncio.create_task(answer(value))
    keys.add(key, content, task)
    await asyncio.wait([task])
    task.exception()
    return task


def test_a_key_finds_its_call_and_no_other():
    async def play():
        keys = Keys()
        task = await done(keys, "a", 1)
        assert keys.find("a", b"content") is task
        assert keys.find("b", b"content") is None
        assert keys.find("", b"content") is None
        with pytest.raises(InvalidInput, match="another call"):
            keys.find("a", b"other")
        with pytest.raises(InvalidInput, match="characters"):
            keys.find("a" * (MAX_KEY_LENGTH + 1), b"")

    asyncio.run(play())


def test_a_call_that_failed_leaves_its_key_free():
    async def play():
        keys = Keys()
        await done(keys, "a", ValueError("no"))
        assert keys.find("a", b"other") is None

    asyncio.run(play())


def test_answers_are_forgotten_after_a_time():
    async def play():
        clock = Clock()
        keys = Keys(clock)
        await done(keys, "a", 1)
        clock.now = KEPT_S
        assert keys.find("a", b"content") is not None
        clock.now = KEPT_S + 1
        assert keys.find("a", b"content") is None

    asyncio.run(play())


def test_the_oldest_answers_are_forgotten_but_nothing_that_runs():
    async def play():
        keys = Keys()
        hung = asyncio.create_task(asyncio.Event().wait())
        keys.add("hung", b"", hung)
        for number in range(MAX_KEYS + 5):
            await done(keys, f"key {number}", number)
        assert keys.find("hung", b"") is hung
        assert keys.find("key 0", b"content") is None
        assert keys.find(f"key {MAX_KEYS + 4}", b"content") is not None
        hung.cancel()

    asyncio.run(play())
