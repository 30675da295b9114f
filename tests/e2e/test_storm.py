"""Hundreds of operations at random through the API, with parts of the server killed under them.

A model says what each sandbox must hold. An operation under which the server is killed may have
happened or not: the sandbox then tells which, and nothing else is allowed. What was acknowledged
is never lost.
"""

import contextlib
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import pytest

from leaks import LeakCheck
from real_server import PARTS, RealServer, serving, wait_until
from wrennd.client.values import Sandbox
from wrennd.core.errors import AlreadyExists, Error, NotFound

OPERATIONS = 300
SEED = 20261123
MOST = 4
SETTLE_S = 120.0
WHAT_MAY_DIE = [PARTS, PARTS[:1], PARTS[1:2]]
Files = dict[str, bytes]


@dataclass
class Model:
    """What is known: each sandbox's state and files, each template's files."""

    states: dict[str, str] = field(default_factory=dict)
    files: dict[str, Files] = field(default_factory=dict)
    templates: dict[str, Files] = field(default_factory=dict)

    def those(self, state: str) -> list[str]:
        return sorted(one for one, found in self.states.items() if found == state)


class Storm:
    """The operations. Each is of one sandbox, and leaves the model at what the server says."""

    def __init__(self, server: RealServer, chance: random.Random) -> None:
        self.server, self.chance = server, chance
        self.client = server.client()
        self.model = Model()
        self.count: dict[str, int] = {}
        self.kills = 0
        # What was asked to go, and what templates were asked to be: it may have come to be so.
        self.doomed: set[str] = set()
        self.offered: dict[str, Files] = {}

    def one(self) -> None:
        kind, act = self.chance.choice(self.possible())
        self.count[kind] = self.count.get(kind, 0) + 1
        if self.chance.random() < 0.1:
            self.under_fire(act)
        else:
            act()

    def possible(self) -> list[tuple[str, Callable[[], None]]]:
        model, chance = self.model, self.chance
        running, paused = model.those("running"), model.those("paused")
        found: list[tuple[str, Callable[[], None]]] = [("list", self.compare)]
        if len(model.states) < MOST:
            found += [("create", self.create)] * 3
        if running:
            box = chance.choice(running)
            found += [("write", lambda: self.write(box))] * 6
            found += [("read", lambda: self.read(box))] * 4
            found += [("pause", lambda: self.pause(box))] * 3
            found += [("destroy", lambda: self.destroy(box))]
            if len(model.templates) < 2:
                found += [("snapshot", lambda: self.snapshot(box))]
        if paused:
            other = chance.choice(paused)
            found += [("resume", lambda: self.resume(other))] * 5
            found += [("destroy paused", lambda: self.destroy(other))]
        if model.templates:
            name = chance.choice(sorted(model.templates))
            found += [("delete snapshot", lambda: self.delete_snapshot(name))]
        return found

    def under_fire(self, act: Callable[[], None]) -> None:
        """Something of the server is killed while it is done. An error is then no surprise."""
        parts, delay_s = self.chance.choice(WHAT_MAY_DIE), self.chance.uniform(0, 1.5)
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(act)
            wait((done,), timeout=delay_s)
            self.kills += 1
            self.server.kill(*parts)
            if "wrenn up" in parts:
                self.server.start()
            else:
                self.server.wait_ready()
            error = done.exception(SETTLE_S)
        if error is not None and not isinstance(error, Error):
            raise error
        self.learn()

    def learn(self) -> None:
        """What became of all of them; nothing that was acknowledged may be gone."""
        for box in self.settled():
            assert box.state in ("running", "paused"), (box, self.server.text()[-2000:])
            if box.id not in self.model.states:
                self.model.files[box.id] = dict(self.model.templates.get(box.template, {}))
            self.model.states[box.id] = box.state
        there = {box.id for box in self.client.list()}
        for gone in set(self.model.states) - there:
            assert gone in self.doomed, f"{gone} is lost"
            del self.model.states[gone], self.model.files[gone]
        names = {one.name for one in self.client.templates() if one.kind == "snapshot"}
        for name in set(self.model.templates) - names:
            assert name in self.doomed, f"{name} is lost"
            del self.model.templates[name]
        for name in names - set(self.model.templates):
            self.model.templates[name] = self.offered[name]

    def settled(self) -> tuple[Sandbox, ...]:
        found: tuple[Sandbox, ...] = ()

        def is_quiet() -> bool:
            nonlocal found
            with contextlib.suppress(Error):
                found = self.client.list()
                return not any(box.is_passing for box in found)
            return False

        wait_until(is_quiet, "all operations to end", SETTLE_S)
        return found

    def create(self) -> None:
        name = self.chance.choice(["busybox", *sorted(self.model.templates)])
        box = self.client.create(name, **({"memory_mib": 128} if name == "busybox" else {}))
        self.model.states[box.id] = "running"
        self.model.files[box.id] = dict(self.model.templates.get(name, {}))

    def write(self, box: str) -> None:
        """A file that is complete is renamed: it is the old one or the new one, never less."""
        path, content = f"/root/{self.chance.randrange(5)}", self.chance.randbytes(5000)
        before = self.model.files[box].get(path)
        self.model.files[box][path] = content
        try:
            self.client.write_file(box, path, content)
        except Error:
            self.model.files[box].pop(path)
            found = self.now(box, path)
            assert found in (before, content)
            if found is not None:
                self.model.files[box][path] = found
            raise

    def now(self, box: str, path: str) -> bytes | None:
        found: list[bytes | None] = []

        def is_told() -> bool:
            try:
                found.append(self.client.read_file(box, path))
            except NotFound:
                found.append(None)
            except Error:
                return False
            return True

        wait_until(is_told, f"{path} of {box}", SETTLE_S)
        return found[-1]

    def read(self, box: str) -> None:
        for path, content in self.model.files[box].items():
            assert self.client.read_file(box, path) == content, (box, path)
        assert self.client.exec(box, "hostname").stdout.strip() == box

    def pause(self, box: str) -> None:
        self.client.pause(box)
        self.model.states[box] = "paused"

    def resume(self, box: str) -> None:
        self.client.resume(box)
        self.model.states[box] = "running"
        self.read(box)

    def destroy(self, box: str) -> None:
        self.doomed.add(box)
        self.client.destroy(box)
        del self.model.states[box], self.model.files[box]

    def snapshot(self, box: str) -> None:
        name = f"storm-{self.chance.randrange(1 << 30)}"
        self.offered[name] = dict(self.model.files[box])
        with contextlib.suppress(AlreadyExists):
            self.client.snapshot(box, name, pause=False)
        self.model.templates[name] = self.offered[name]

    def delete_snapshot(self, name: str) -> None:
        self.doomed.add(name)
        self.client.delete_snapshot(name)
        del self.model.templates[name]

    def compare(self) -> None:
        assert {box.id: box.state for box in self.client.list()} == self.model.states

    def all_are_whole(self) -> None:
        for box in self.model.those("paused"):
            self.resume(box)
        for box in self.model.those("running"):
            self.read(box)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_nothing_is_lost_in_a_storm(layout, tmp_path):
    check = LeakCheck()
    check.watch(layout.installation, layout.sandboxes, layout.templates)
    with serving(layout, tmp_path / "log") as server:
        storm = Storm(server, random.Random(SEED))
        with contextlib.closing(storm.client):
            for _ in range(OPERATIONS):
                storm.one()
            storm.all_are_whole()
        print(f"{storm.kills} kills; {storm.count}")
        assert storm.kills > OPERATIONS / 20
    check.finish()
