"""Measure the guest agent in a guest: commands, streams, and contents of files beside plain TCP.

One guest of the base image; every number is taken through the host's own client, so it has the
RPC, the slot's network and the guest's processor in it. What bounds the transfers is measured in
the same guest: `cat`, between the same file and a TCP socket (busybox's nc), read and written by
the same loop on the host.
"""

import argparse
import io
import os
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

from built_images import prepared_layout
from wrennd.core.config import Config
from wrennd.core.deadline import Deadline
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxSpec
from wrennd.core.sandboxes import Exit, Output
from wrennd.core.timings import Timings
from wrennd.host import envd_wire
from wrennd.host.envd_client import EnvdClient
from wrennd.host.envd_wire import Peer
from wrennd.host.local import LocalSandboxes
from wrennd.host.machine import Machine

MEM_MIB = 1024
TCP_PORT = 9000
STREAMS = 64
STREAM_BYTES = 256 << 10
PIECE = 1 << 20
FILE = "/home/user/bench"
BUSYBOX = "/usr/lib/wrenn/busybox"


class Zeros(io.RawIOBase):
    """So many bytes to be read."""

    def __init__(self, size: int) -> None:
        self._left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        count = min(self._left, size if size >= 0 else self._left)
        self._left -= count
        return bytes(count)


class Sink(io.RawIOBase):
    """Counts what is written."""

    count = 0

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.count += len(data)
        return len(data)


@contextmanager
def guest() -> Iterator[EnvdClient]:
    layout = prepared_layout()
    spec = SandboxSpec(id=new_sandbox_id(), image="base", mem_mib=MEM_MIB)
    sandboxes = LocalSandboxes(Config(data_dir=layout.data_dir), print)
    machine = Machine.boot(spec, sandboxes.parts(spec), Timings())
    try:
        yield machine.envd
    finally:
        machine.close()


def run(client: EnvdClient, *argv: str) -> bytes:
    with client.start(Command(argv=argv)) as started:
        events = list(started.events())
    assert isinstance(events[-1], Exit)
    assert events[-1].code == 0, argv
    return b"".join(event.data for event in events if isinstance(event, Output))


def round_trips(client: EnvdClient, count: int) -> list[float]:
    """Milliseconds of each command, one after the other."""
    times = []
    for _ in range(count):
        began = time.monotonic()
        run(client, "true")
        times.append((time.monotonic() - began) * 1000)
    return times


def streams(client: EnvdClient) -> float:
    """Seconds until STREAMS commands at once have each sent STREAM_BYTES."""
    argv = ("head", "-c", str(STREAM_BYTES), "/dev/zero")
    began = time.monotonic()
    with ThreadPoolExecutor(STREAMS) as pool:
        for data in pool.map(lambda _: run(client, *argv), range(STREAMS)):
            assert len(data) == STREAM_BYTES
    return time.monotonic() - began


@contextmanager
def plain(client: EnvdClient, redirection: str) -> Iterator[socket.socket]:
    """A TCP connection to a `cat` between it and the file; left when `cat` is done."""
    script = f"exec {BUSYBOX} nc -l -p {TCP_PORT} -e {BUSYBOX} sh -c 'exec cat {redirection}'"
    with client.start(Command(argv=("sh", "-c", script))) as started:
        peer = Peer(address=client.peer.address, port=TCP_PORT)
        sock = envd_wire.knock(peer, Deadline.after(30))
        with sock:
            sock.setblocking(True)
            sock.settimeout(600)
            yield sock
        for _ in started.events():
            pass


def tcp_down(client: EnvdClient) -> int:
    count = 0
    with plain(client, f"{FILE}") as sock:
        while data := sock.recv(PIECE):
            count += len(data)
    return count


def tcp_up(client: EnvdClient, size: int) -> int:
    with plain(client, f"> {FILE}.tcp") as sock:
        for _ in range(size // PIECE):
            sock.sendall(bytes(PIECE))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(PIECE):
            pass
    return size


def megabytes_per_s(transfer, size: int) -> float:
    began = time.monotonic()
    assert transfer() == size
    return size / 1e6 / (time.monotonic() - began)


def transfers(client: EnvdClient, size: int) -> Iterator[tuple[str, float]]:
    def up() -> int:
        client.upload_file(FILE, Zeros(size), mode=0o644)
        return size

    def exec_down() -> int:
        return len(run(client, "cat", FILE))

    yield "upload", megabytes_per_s(up, size)
    yield "upload, cat over TCP", megabytes_per_s(lambda: tcp_up(client, size), size)
    yield "download", megabytes_per_s(lambda: client.files.download(FILE, Sink()), size)
    yield "download, cat over TCP", megabytes_per_s(lambda: tcp_down(client), size)
    yield "output of a command", megabytes_per_s(exec_down, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=1000)
    parser.add_argument("--mib", type=int, default=256)
    options = parser.parse_args()
    with guest() as client:
        run(client, "true")
        times = round_trips(client, options.commands)
        print(
            f"exec round trip: median {statistics.median(times):.0f} ms, "
            f"min {min(times):.0f}, max {max(times):.0f}"
        )
        print(f"{len(times)} commands: {sum(times) / 1000:.1f} s")
        print(f"{STREAMS} streams of {STREAM_BYTES >> 10} KiB at once: {streams(client):.1f} s")
        for name, rate in transfers(client, options.mib << 20):
            print(f"{name}: {rate:.1f} MB/s", flush=True)


if __name__ == "__main__":
    main()
