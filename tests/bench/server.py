"""Measure what the server adds: API beside host agent beside the guest's agent; lists; memory.

The same command, the same file and the same creation by each way, medians of N, and what the API
adds to the agent's own. The list is asked of a control plane with a fake host, which has a thousand
sandboxes. Memory (RSS) is that of the two programs, without sandboxes and with twenty. The bound:
an exec through the API takes at most three times as long as one straight to the guest's agent.
Exits with 1 when it does not hold.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

import httpx
from protobuf import Oneof
from verdict import Samples, all_hold, judge, show_host

import agent_client
from built_images import prepared_layout
from control_plane import control_plane
from real_server import RealServer, serving
from wrennd.client.blocking import Client
from wrennd.core.config import Config
from wrennd.core.deadline import Deadline
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command
from wrennd.gen.hostagent import hostagent_pb as pb
from wrennd.host.local import LocalSandboxes
from wrennd.linux import process
from wrennd.server.settings import RunFiles

LIMIT_EXEC = 3.0
ROWS, LISTS_S = 1000, 5.0
MANY = 20
FILE = os.urandom(1 << 20)
SMALL = {"template": "busybox", "memory_mib": 128}
TEMPLATE = "bench-server"


def took_ms(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return (time.monotonic() - began) * 1000


def commands(server: RealServer, client: Client, count: int) -> Iterator[bool]:
    box = client.create(**SMALL)
    agent = agent_client.client(RunFiles.of(server.layout).agent_socket)
    sandboxes = LocalSandboxes(Config(data_dir=server.layout.data_dir), print)
    request = pb.ExecRequest(sandbox_id=box.id, command=agent_client.command("true"))
    ways = Samples()
    with sandboxes.connect(box.id) as straight:

        def to_envd() -> None:
            with straight.start(Command(argv=("true",), user="root")) as running:
                list(running.events())

        for _ in range(count):
            ways.add(
                {
                    "exec, straight to envd": took_ms(to_envd),
                    "exec, host agent": took_ms(lambda: agent.exec(request)),
                    "exec, API": took_ms(lambda: client.exec(box.id, "true")),
                    "write of 1 MiB, host agent": took_ms(lambda: written(agent, box.id)),
                    "write of 1 MiB, API": took_ms(lambda: client.write_file(box.id, "/f", FILE)),
                    "read of 1 MiB, host agent": took_ms(lambda: read(agent, box.id)),
                    "read of 1 MiB, API": took_ms(lambda: client.read_file(box.id, "/f")),
                }
            )
    ways.show("one sandbox")
    added(ways, "exec", "write of 1 MiB", "read of 1 MiB")
    client.destroy(box.id)
    ratio = ways.median("exec, API") / ways.median("exec, straight to envd")
    yield judge("exec through the API beside straight to envd", ratio, LIMIT_EXEC)


def added(ways: Samples, *what: str) -> None:
    """What the API takes over the agent's own."""
    for each in what:
        over = ways.median(f"{each}, API") - ways.median(f"{each}, host agent")
        print(f"  the API adds to {each}: {over:.1f} ms")


def written(agent: agent_client.HostAgentServiceClientSync, sandbox_id: str) -> None:
    target = pb.WriteFileRequest.Target(sandbox_id=sandbox_id, path="/f")
    pieces = [FILE[at : at + (256 << 10)] for at in range(0, len(FILE), 256 << 10)]
    agent.write_file(
        [
            pb.WriteFileRequest(part=Oneof("target", target)),
            *(pb.WriteFileRequest(part=Oneof("chunk", piece)) for piece in pieces),
        ]
    )


def read(agent: agent_client.HostAgentServiceClientSync, sandbox_id: str) -> None:
    content = b"".join(
        one.chunk for one in agent.read_file(pb.ReadFileRequest(sandbox_id=sandbox_id, path="/f"))
    )
    assert content == FILE


def creations(server: RealServer, client: Client, count: int) -> None:
    agent = agent_client.client(RunFiles.of(server.layout).agent_socket)
    ways = Samples()
    for _ in range(count):
        request = pb.CreateSandboxRequest(
            sandbox_id=new_sandbox_id(), template="busybox", mem_mib=128
        )
        by_agent = took_ms(lambda: agent.create_sandbox(request))  # noqa: B023 - called at once
        agent.destroy_sandbox(pb.DestroySandboxRequest(sandbox_id=request.sandbox_id))
        made = []
        by_api = took_ms(lambda: made.append(client.create(**SMALL)))  # noqa: B023
        client.destroy(made[0].id)
        ways.add({"create, host agent": by_agent, "create, API": by_api})
    ways.show("create until it runs")
    added(ways, "create")


def memory(server: RealServer, client: Client) -> None:
    """RSS in MiB, after a list of what is there."""
    show_memory(server, client, "no sandboxes")
    box = client.create(**SMALL)
    client.snapshot(box.id, TEMPLATE)
    client.destroy(box.id)
    boxes = [client.create(TEMPLATE) for _ in range(MANY)]
    for each in boxes:
        client.exec(each.id, "true")
    show_memory(server, client, f"{MANY} sandboxes")


def show_memory(server: RealServer, client: Client, title: str) -> None:
    client.list()
    found = Samples()
    for part in ("wrennd.host.agent", "wrennd.control", "wrenn up"):
        kib = 0
        for pid in server.pids(part):
            status = Path(f"/proc/{pid}/status").read_text()
            kib += int(status.split("VmRSS:")[1].split()[0])
        found.add({part: kib / 1024})
    found.show(f"RSS, {title}", "MiB")


def lists(directory: Path) -> None:
    """Asked from another process, which has nothing else to do: this one serves."""
    with control_plane(directory) as found:
        for _ in range(ROWS):
            found.create(template="base")
        rates = Samples()
        for limit in (100, ROWS):
            asked = [sys.executable, __file__, "--ask", found.url, "--limit", str(limit)]
            told = process.run(asked, stdin=found.key, timeout_s=10 * LISTS_S)
            rates.add({f"{limit} of {ROWS} rows": float(told.stdout)})
        rates.show("lists, asked from another process", "a second")


def asking(url: str, key: str, limit: int) -> float:
    """How many lists a second one client gets."""
    with httpx.Client(base_url=url, headers={"X-API-Key": key}, trust_env=False) as client:
        deadline, count = Deadline.after(LISTS_S), 0
        while not deadline.is_over:
            answer = client.get("/v1/sandboxes", params={"limit": limit})
            assert answer.content.count(b'"id":') == limit, answer.text[:200]
            count += 1
    return count / LISTS_S


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=10, help="how often each is measured")
    parser.add_argument("--ask", metavar="URL", help="only ask it for lists; its key on stdin")
    parser.add_argument("--limit", type=int, default=ROWS)
    arguments = parser.parse_args()
    if arguments.ask:
        print(asking(arguments.ask, sys.stdin.read(), arguments.limit))
        return 0
    count = arguments.n
    show_host()
    held: list[bool] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(serving(prepared_layout(), directory / "log"))
        client = stack.enter_context(contextlib.closing(server.client()))
        held += commands(server, client, count)
        creations(server, client, count)
        memory(server, client)
    with tempfile.TemporaryDirectory() as directory:
        lists(Path(directory))
    return all_hold(held)


if __name__ == "__main__":
    sys.exit(main())
