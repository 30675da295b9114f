"""What a user of the published client `wrenn` 0.3.0 does; run by an interpreter that has it.

Arguments: the server's URL, an API key, a template. Fails with an AssertionError.
"""

import asyncio
import sys

import wrenn
from wrenn.exceptions import (
    WrennAuthenticationError,
    WrennConflictError,
    WrennNotFoundError,
    WrennValidationError,
)

BIG = b"0123456789" * 100_000


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def commands(capsule):
    done = capsule.commands.run("echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.exit_code) == ("out\n", "err\n", 3)
    done = capsule.commands.run("pwd; env", cwd="/tmp", envs={"A": "b"})
    assert done.stdout.startswith("/tmp\n")
    assert "A=b\n" in done.stdout
    kinds = [event.type for event in capsule.commands.stream("echo x; exit 4")]
    assert kinds == ["start", "stdout", "exit"], kinds
    handle = capsule.commands.run("sleep 99", background=True, tag="mine")
    assert (handle.tag, [each.pid for each in capsule.commands.list()]) == ("mine", [handle.pid])
    followed = capsule.commands.connect(handle.pid)
    assert next(followed).type == "start"
    capsule.commands.kill(handle.pid)
    assert [event.exit_code for event in followed] == [137]


def files(capsule):
    capsule.files.write("/tmp/deep/er/file", "text")
    assert capsule.files.read("/tmp/deep/er/file") == "text"
    assert capsule.files.exists("/tmp/deep/er/file")
    assert not capsule.files.exists("/tmp/deep/er/other")
    assert [entry.name for entry in capsule.files.list("/tmp/deep/er")] == ["file"]
    assert capsule.files.make_dir("/tmp/made").name == "made"
    assert capsule.files.make_dir("/tmp/made").name == "made"
    capsule.files.upload_stream("/tmp/big", iter([BIG[:500_000], BIG[500_000:]]))
    assert b"".join(capsule.files.download_stream("/tmp/big")) == BIG
    capsule.files.remove("/tmp/deep")
    refused(WrennNotFoundError, lambda: capsule.files.read_bytes("/tmp/deep/er/file"))


def terminal(capsule):
    with capsule.pty(cmd="/bin/sh") as term:
        term.resize(100, 30)
        term.write(b"echo in a terminal\n")
        shown = b""
        for event in term:
            shown += event.data if event.type == "output" else b""
            if b"in a terminal\r\n" in shown or shown.count(b"in a terminal") > 1:
                break
        tag = term.tag
    with capsule.pty_connect(tag) as term:
        assert next(iter(term)).type == "started"
        term.kill()
        assert [event.type for event in term][-1] == "exit"


def lives(capsule, client, options):
    assert capsule.pause(wait=True).status == "paused"
    refused(WrennConflictError, lambda: capsule.commands.run("true"))
    assert capsule.resume(wait=True).status == "running"
    capsule.ping()
    made = capsule.create_snapshot("published", overwrite=True)
    assert (made.name, made.type) == ("published", "snapshot")
    assert "published" in [each.name for each in client.snapshots.list(type="snapshot")]
    child = wrenn.Capsule(template="published", wait=True, **options)
    assert child.commands.run("echo child").stdout == "child\n"
    child.destroy(wait=True)
    client.snapshots.delete("published")
    again = wrenn.Capsule.connect(capsule.capsule_id, **options)
    assert again.is_running()
    assert capsule.capsule_id in [each.id for each in wrenn.Capsule.list(**options)]
    assert client.capsules.stats(range="5m").current.running_count >= 1
    assert len(client.capsules.usage().points) == 30
    assert client.capsules.metrics(capsule.capsule_id, range="10m").points is not None
    feed = client.events.stream()
    assert next(feed).event == "connected"
    feed.close()


async def awaited(options, template):
    async with await wrenn.AsyncCapsule.create(template=template, wait=True, **options) as capsule:
        assert (await capsule.commands.run("echo async")).stdout == "async\n"
        kinds = [event.type async for event in capsule.commands.stream("echo x")]
        assert kinds == ["start", "stdout", "exit"]
        await capsule.files.write("/tmp/a", b"1")
        assert await capsule.files.read("/tmp/a") == "1"


def main(url, key, template):
    options = {"base_url": url, "api_key": key}
    client = wrenn.WrennClient(**options)
    capsule = wrenn.Capsule(template=template, timeout=600, wait=True, **options)
    try:
        commands(capsule)
        files(capsule)
        terminal(capsule)
        lives(capsule, client, options)
    finally:
        capsule.destroy(wait=True)
    assert capsule.get_info().status == "stopped"
    asyncio.run(awaited(options, template))
    refused(WrennNotFoundError, lambda: client.capsules.get("a" * 20))
    refused(WrennValidationError, lambda: client.capsules.create(vcpus=0))
    wrong = {**options, "api_key": "e2b_" + "0" * 40}
    refused(WrennAuthenticationError, lambda: wrenn.Capsule(**wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
