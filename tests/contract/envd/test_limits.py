"""What envd costs, and that nobody can make it cost more."""

import contextlib
import gzip
import hashlib
import json
import random
import select
import socket
import subprocess
import sys
import time
import zlib

import pytest

from contract.envd.test_watch import Kept, Streamed
from envd_agent import PROGRAM, STREAM, heavy, running
from wrennd.linux.cgroup import Hierarchy

MAX_IDLE_KIB = 20 << 10
MAX_MODULES = 40
# What a slow reader may cost: its output buffer, the socket's, and the interpreter's slack.
MAX_GROWTH_KIB = 4 << 10
FORBIDDEN = {"enum", "re", "typing", "dataclasses", "socket", "subprocess", "json", "asyncio"}


def test_idle_memory(new_agent):
    new_agent.run("true")
    assert new_agent.rss_kib() < MAX_IDLE_KIB


def test_imports():
    code = "import sys, os; before = set(sys.modules);" + PROGRAM.replace(
        "sys.exit(main(sys.argv[1:]))", "print(*set(sys.modules) - before)"
    )
    argv = [sys.executable, "-I", "-S", "-c", code]
    found = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout
    assert FORBIDDEN & set(found.split()) == set()
    assert len(found.split()) < MAX_MODULES


@heavy
def test_a_slow_reader_costs_little_and_blocks_nobody(fresh_agent):
    fresh_agent.run("true")
    before = fresh_agent.rss_kib()
    slow = [fresh_agent.start("head", "-c", "50000000", "/dev/zero") for _ in range(4)]
    for _ in range(20):
        assert fresh_agent.sh("echo hi").output["stdout"] == b"hi\n"
    assert fresh_agent.rss_kib() - before < MAX_GROWTH_KIB
    for stream in slow:
        assert len(stream.rest().output["stdout"]) == 50_000_000
        assert stream.end["exitCode"] == 0


def test_a_slow_reader_who_leaves_frees_the_process(fresh_agent):
    stream = fresh_agent.start("/bin/sh", "-c", "head -c 5000000 /dev/zero; exit 8")
    other = fresh_agent.stream("Connect", {"process": {"pid": stream.pid}})
    stream.close()
    assert other.rest().end["exitCode"] == 8


def test_a_slow_download_costs_little(fresh_agent, folder):
    path = f"{folder}/large"
    assert fresh_agent.run("truncate", "-s", str(64 << 20), path).end["exitCode"] == 0
    before = fresh_agent.rss_kib()
    connection = fresh_agent.connection()
    connection.request("GET", f"/files?path={path}")
    response = connection.getresponse()
    assert fresh_agent.is_alive()
    assert fresh_agent.rss_kib() - before < MAX_GROWTH_KIB
    count = 0
    while data := response.read(1 << 20):
        count += len(data)
    assert count == 64 << 20
    connection.close()


def pieces(size, patterns=(b"a", b"bc", b"def")):
    """So many bytes, in pieces that are not all alike."""
    for number in range(size >> 20):
        yield patterns[number % len(patterns)] * ((1 << 20) // len(patterns[number % 3]) + 1)


@pytest.mark.parametrize("how", ["raw", "form", "packed"])
def test_long_streams_cost_little(local_agent, folder, how):
    stream_both_ways(local_agent, f"{folder}/large", how, 128)


@heavy
@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("how", ["raw", "form"])
def test_a_gibibyte_costs_as_little(fresh_agent, folder, how):
    stream_both_ways(fresh_agent, f"{folder}/large", how, 1024)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_packed_gibibyte_costs_as_little(local_agent, folder):
    stream_both_ways(local_agent, f"{folder}/large", "packed", 1024)


def stream_both_ways(agent, path, how, mib):
    """Up and down again; what is compared is the digest, since nobody holds so much."""
    agent.put(path, b"warm")
    agent.get(path)
    before = agent.rss_kib()
    sent = hashlib.sha256()

    def body():
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        if how == "form":
            yield b'--X\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
        for data in watched(agent, before, pieces(mib << 20)):
            sent.update(data)
            yield packer.compress(data) if how == "packed" else data
        if how == "form":
            yield b"\r\n--X--\r\n"
        elif how == "packed":
            yield packer.flush()

    headers = {"Content-Encoding": "gzip"} if how == "packed" else {}
    if how == "form":
        headers = {"Content-Type": "multipart/form-data; boundary=X"}
    assert agent.put(path, (data for data in body() if data), headers)[0] == 200
    got = hashlib.sha256()
    accepted = {"Accept-Encoding": "gzip"} if how == "packed" else {}
    unpacker = zlib.decompressobj(31)
    with contextlib.closing(agent.connection()) as connection:
        connection.request("GET", f"/files?path={path}", headers=accepted)
        response = connection.getresponse()
        for data in watched(agent, before, iter(lambda: response.read(1 << 20), b"")):
            got.update(unpacker.decompress(data) if how == "packed" else data)
    assert got.digest() == sent.digest()


def watched(agent, before, stream):
    """The pieces of a stream; every hundredth, and at its end, the agent's memory is looked at."""
    for number, data in enumerate(stream):
        if number % 100 == 99:
            assert agent.rss_kib() - before < MAX_GROWTH_KIB
        yield data
    assert agent.rss_kib() - before < MAX_GROWTH_KIB


@heavy
def test_a_bomb_blocks_nobody(fresh_agent, folder):
    """A little that unpacks to a lot: others are answered while it does."""
    fresh_agent.put(f"{folder}/f", b"")
    before = fresh_agent.rss_kib()
    bomb = gzip.compress(bytes(256 << 20), 1)
    head = (
        f"POST /files?path={folder}/f HTTP/1.1\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\nConnection: close\r\n\r\n"
    )
    with fresh_agent.socket() as sock:
        sock.sendall(head.encode() + bomb)
        waits = []
        while not select.select([sock], [], [], 0)[0]:
            began = time.monotonic()
            assert fresh_agent.is_alive()
            waits.append(time.monotonic() - began)
        assert sock.recv(15) == b"HTTP/1.1 200 OK"
    assert len(waits) > 3
    assert max(waits) < sum(waits) / 2, "one that blocks is one wait"
    assert fresh_agent.rss_kib() - before < MAX_GROWTH_KIB


@heavy
def test_a_large_removal_blocks_nobody(fresh_agent, folder):
    fresh_agent.sh(f"mkdir {folder}/d; cd {folder}/d; seq 30000 | xargs touch")
    with fresh_agent.socket() as sock:
        body = json.dumps({"path": f"{folder}/d"})
        sock.sendall(
            b"POST /filesystem.Filesystem/Remove HTTP/1.1\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        answered = 0
        while not select.select([sock], [], [], 0)[0]:
            assert fresh_agent.is_alive()
            answered += 1
        assert sock.recv(15) == b"HTTP/1.1 200 OK"
    assert answered > 3
    assert fresh_agent.fs("Stat", {"path": f"{folder}/d"})[0] == 404


@heavy
def test_lost_events_are_told_and_the_watch_goes_on(fresh_agent, folder):
    with contextlib.closing(Kept(fresh_agent, folder, recursive=True)) as watch:
        fresh_agent.sh(f"cd {folder}; mkdir late; seq 20000 | xargs touch; seq 20000 | xargs rm")
        status, body = fresh_agent.fs("GetWatcherEvents", {"watcherId": watch.id})
        assert (status, body["code"]) == (500, "data_loss")
        assert watch.changes() == []
        fresh_agent.sh(f": > {folder}/late/f")
        assert watch.changes() == [("CREATE", "late/f")]


@heavy
def test_a_watch_that_nobody_reads_costs_little(fresh_agent, folder):
    with contextlib.closing(Streamed(fresh_agent, folder, recursive=True)) as watch:
        watch.begin()
        # Enough to fill the stream, the sockets and the kernel's queue; long names do it sooner.
        below = f"{folder}/{'x' * 240}"
        fresh_agent.sh(f"mkdir {below}; cd {below}; seq 20000 | xargs touch; seq 20000 | xargs rm")
        assert fresh_agent.is_alive()
        while (found := watch.next())[0] == 0:
            pass
        assert found[1]["error"]["code"] == "data_loss"


REQUESTS = (
    b"POST /process.Process/Start HTTP/1.1\r\nContent-Type: application/connect+json\r\n"
    b'Content-Length: 29\r\n\r\n\0\0\0\0\x18{"process":{"cmd":"true"}}',
    b"POST /filesystem.Filesystem/ListDir HTTP/1.1\r\nContent-Type: application/json\r\n"
    b'Transfer-Encoding: chunked\r\n\r\n10\r\n{"path":"/proc"}\r\n0\r\n\r\n',
    b"POST /files?path=DIR/f HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=X\r\n"
    b'Content-Length: 66\r\n\r\n--X\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc'
    b"\r\n--X--\r\n",
    b"GET /files?path=/etc/passwd HTTP/1.1\r\nRange: bytes=1-5\r\nAccept-Encoding: gzip\r\n\r\n",
    b"POST /files/compose HTTP/1.1\r\nContent-Length: 50\r\n\r\n"
    b'{"source_paths":["DIR/f"],"destination":"DIR/g"}  ',
    b"POST /filesystem.Filesystem/WatchDir HTTP/1.1\r\nContent-Type: application/connect+json\r\n"
    b'Content-Length: 21\r\n\r\n\0\0\0\0\x10{"path":"/proc"}',
)


@heavy
def test_damaged_requests_never_end_the_agent(fresh_agent, folder):
    """Bytes changed, dropped and doubled, the same ones in each run."""
    chance = random.Random(1)
    for number in range(600):
        request = bytearray(REQUESTS[number % len(REQUESTS)])
        request = bytearray(bytes(request).replace(b"DIR", folder.encode()))
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(request))
            match chance.randrange(3):
                case 0:
                    request[at] = chance.randrange(256)
                case 1:
                    del request[at : at + chance.randrange(1, 20)]
                case _:
                    request[at:at] = request[at : at + chance.randrange(1, 20)]
        with fresh_agent.socket() as sock:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            if chance.randrange(2):
                sock.settimeout(0.01)
                with contextlib.suppress(OSError):
                    sock.recv(65536)
        if number % 50 == 0:
            assert fresh_agent.is_alive()
    assert fresh_agent.sh("echo hi").output["stdout"] == b"hi\n"


def test_groups_that_have_gone_are_an_error_and_not_the_end(local_freezable):
    where = local_freezable.sh("cat /proc/self/cgroup").output["stdout"].decode()
    (line,) = [line for line in where.splitlines() if line.startswith("0::")]
    group = line.removeprefix("0::").removesuffix("/user")
    root = Hierarchy.find().mount / group.lstrip("/")
    (root / "ptys").rmdir()
    status, _, body = local_freezable.http("POST", "/freeze")
    assert (status, json.loads(body)["code"]) == (500, 500)
    assert local_freezable.sh("echo hi").output["stdout"] == b"hi\n"


def test_pipelined_requests_behind_a_running_one_wait(fresh_agent):
    before = fresh_agent.rss_kib()
    message = b'{"process":{"cmd":"sleep","args":["60"]}}'
    body = b"\0" + len(message).to_bytes(4, "big") + message
    head = f"POST /process.Process/Start HTTP/1.1\r\nContent-Type: {STREAM}\r\n"
    with fresh_agent.socket() as sock:
        sock.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        sock.setblocking(False)
        sent = 0
        request = b"GET /health HTTP/1.1\r\n\r\n" * 10_000
        try:
            while sent < 100 << 20:
                sent += sock.send(request)
        except BlockingIOError:
            pass
        assert fresh_agent.is_alive()
        assert fresh_agent.rss_kib() - before < MAX_GROWTH_KIB
    assert fresh_agent.is_alive()


def test_many_idle_connections_leave_room(fresh_agent):
    socks = [fresh_agent.socket() for _ in range(200)]
    try:
        assert fresh_agent.sh("echo hi").output["stdout"] == b"hi\n"
    finally:
        for sock in socks:
            sock.close()
    assert fresh_agent.is_alive()


def test_it_runs_out_of_descriptors_and_recovers(limited_agent):
    assert limited_agent.run("true").end["exitCode"] == 0
    started, refused = [], None
    while refused is None:
        stream = limited_agent.start("sleep", "60")
        if stream.error:
            refused = stream.error
        else:
            started.append(stream)
    assert refused["code"] == "resource_exhausted"
    for stream in started:
        stream.close()
    assert limited_agent.is_alive()


@pytest.mark.parametrize(
    "argv", [["--port"], ["--port", "x"], ["--port", "70000"], ["--nope", "1"]]
)
def test_a_bad_command_line_is_explained(argv):
    done = subprocess.run(
        [sys.executable, "-m", "wrennd.envd", *argv], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert done.stderr.startswith("envd: ")
    assert argv[0] in done.stderr.splitlines()[0]
    assert "usage: envd" in done.stderr


def test_a_taken_port_is_explained(local_agent):
    argv = [sys.executable, "-m", "wrennd.envd", "--address", local_agent.address, "--port"]
    with local_agent.entered():
        done = subprocess.run(
            [*argv, str(local_agent.port)], capture_output=True, text=True, timeout=30
        )
    assert done.returncode == 1
    assert "Address already in use" in done.stderr


def test_a_listening_socket_may_be_passed():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with running("--listen-fd", str(sock.fileno())) as agent:
            assert agent.port == sock.getsockname()[1]
            done = agent.sh("ls /proc/$$/fd")
            assert set(done.output["stdout"].split()) <= {b"0", b"1", b"2", b"10", b"255"}
