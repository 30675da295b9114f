"""Run as a program in the namespace that plays the host: do what lines of JSON on stdin say.

A process cannot change its network namespace halfway, so what is under test runs here. Each line
is [verb, {arguments}]; each answer one line: {"answer": ...} or {"error": class, "text": ...}.
"""

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from leaks import Scope, snapshot
from wrennd.core.deadline import Deadline
from wrennd.core.errors import Error
from wrennd.core.ids import new_sandbox_id
from wrennd.network import leftovers
from wrennd.network.slot import Network, Slot, open_slot
from wrennd.network.survey import survey


class Planned(OSError):
    """The failure that a test asked for."""


class Worker:
    def __init__(self, installation: str, run_root: Path, pool: str) -> None:
        self.network = Network(installation=installation, run_root=run_root, pool=IPv4Network(pool))
        self.open: dict[str, ExitStack] = {}

    def do_open(self, sandbox: str, dns: list[str], fail_after: str = "") -> dict[str, Any]:
        def step(name: str) -> None:
            if name == fail_after:
                raise Planned(f"after {name}")

        with ExitStack() as held:
            slot = held.enter_context(
                open_slot(
                    self.network,
                    sandbox,
                    dns=tuple(map(IPv4Address, dns)),
                    deadline=Deadline.after(20),
                    step=step,
                )
            )
            self.open[sandbox] = held.pop_all()
        return describe(slot)

    def do_close(self, sandbox: str) -> None:
        self.open.pop(sandbox).close()

    def do_rounds(self, count: int) -> None:
        for _ in range(count):
            with open_slot(
                self.network, new_sandbox_id(), dns=(), deadline=Deadline.after(20)
            ) as slot:
                assert slot.netns_path.exists()

    def do_find(self) -> list[str]:
        return sorted(leftovers.find(self.network))

    def do_remove(self, sandbox: str) -> None:
        leftovers.remove(self.network, sandbox)

    def do_sweep(self) -> None:
        leftovers.sweep(self.network)

    def do_snapshot(self) -> dict[str, list[str]]:
        scope = Scope(installations=(self.network.installation,), run_root=self.network.run_root)
        return {kind: sorted(names) for kind, names in snapshot(scope).things.items()}

    def do_survey(self) -> dict[str, Any]:
        return asdict(survey(self.network.pool, ()))


def describe(slot: Slot) -> dict[str, Any]:
    return {
        "index": slot.index,
        "netns": str(slot.netns_path),
        "uid": slot.uid,
        "address": str(slot.address),
        "mac": slot.guest_mac,
        "tap": slot.tap,
    }


def main() -> None:
    installation, run_root, pool = sys.argv[1:]
    worker = Worker(installation, Path(run_root), pool)
    print(json.dumps({"answer": "ready"}), flush=True)
    for line in sys.stdin:
        verb, arguments = json.loads(line)
        try:
            said = {"answer": getattr(worker, f"do_{verb}")(**arguments)}
        except (OSError, Error) as error:
            said = {"error": type(error).__name__, "text": str(error)}
        print(json.dumps(said), flush=True)
    with ExitStack() as last:
        for held in worker.open.values():
            last.push(held)


if __name__ == "__main__":
    main()
