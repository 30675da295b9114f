"""POST /v1/sandboxes/{id}/fork: children with rows and ends of their own, whatever happens."""

import asyncio

import pytest

from control_plane import control_plane
from wrennd.client import AsyncClient, Client
from wrennd.core.deadline import Deadline
from wrennd.core.errors import NoCapacity, WrongState


def fork(server, sandbox_id, *, key="", **body):
    headers = {"Idempotency-Key": key} if key else {}
    return server.api.post(f"/v1/sandboxes/{sandbox_id}/fork", json=body, headers=headers)


def until(found, what):
    deadline = Deadline.after(60)
    while not found():
        deadline.check(what)


def test_a_fork_of_a_fork(server):
    source = server.create(metadata={"a": "1"}, expiry={"seconds": 3600})
    answer = fork(server, source, count=2, metadata={"b": "2"})
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert (body["source"]["id"], body["source"]["state"]) == (source, "running")
    assert body["source"]["timings"]["phases"]
    assert len(body["children"]) == 2
    for child in body["children"]:
        box = child["sandbox"]
        assert (box["state"], box["source"], box["generation"]) == ("running", source, 1)
        assert box["metadata"] == {"a": "1", "b": "2"}
        assert box["expiry"]["seconds"] == 3600
        assert box["address"]
        assert box["timings"]["phases"]
        assert child["error"] is None
        assert child["unique"]
        assert child["shared"]
        assert server.api.get(f"/v1/sandboxes/{box['id']}").json()["source"] == source
        done = server.api.get(f"/v1/sandboxes/{box['id']}/timings").json()["operations"]
        assert [each["operation"] for each in done] == ["forked"]
    first = body["children"][0]["sandbox"]["id"]
    below = fork(server, first).json()["children"][0]["sandbox"]
    assert below["source"] == first
    kinds = [
        each["kind"] for each in server.api.get(f"/v1/sandboxes/{source}/events").json()["events"]
    ]
    assert "fork" in kinds


def test_what_is_refused(server):
    source = server.create()
    for count in (0, 21, -1, "2"):
        assert fork(server, source, count=count).status_code == 400
    assert server.other.post(f"/v1/sandboxes/{source}/fork").status_code == 404
    server.api.delete(f"/v1/sandboxes/{source}")
    gone = fork(server, source)
    assert (gone.status_code, gone.json()["error"]["code"]) == (409, "wrong_state")


def test_one_that_is_starting_is_refused(tmp_path):
    from wrennd.control.settings import Bounds

    with control_plane(tmp_path, bounds=Bounds(answer_s=0)) as own:
        with own.agent.hold("create_sandbox"):
            made = own.api.post("/v1/sandboxes").json()["id"]
            refused = fork(own, made)
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "wrong_state")
        until(lambda: own.state(made) == "running", "the sandbox")


def test_a_paused_one_stays_paused(server):
    source = server.create()
    server.api.post(f"/v1/sandboxes/{source}/pause")
    body = fork(server, source).json()
    assert body["source"]["state"] == "paused"
    assert body["children"][0]["sandbox"]["state"] == "running"
    assert server.state(source) == "paused"


def test_those_that_fit_succeed_and_the_others_say_why(server):
    source = server.create(memory_mib=512)
    used = server.agent.mem_mib
    taken = sum(
        box.facts.mem_mib for box in server.agent.boxes.values() if box.facts.state == "running"
    )
    try:
        server.agent.mem_mib = taken + 1100
        body = fork(server, source, count=3).json()
        states = [child["sandbox"]["state"] for child in body["children"]]
        assert states == ["running", "running", "stopped"]
        failed = body["children"][2]
        assert failed["error"]["code"] == "no_capacity"
        assert failed["sandbox"]["error"] == failed["error"]["message"]
        none = fork(server, source, key="no-room")
        assert (none.status_code, none.json()["error"]["code"]) == (503, "no_capacity")
        assert server.state(source) == "running"
    finally:
        server.agent.mem_mib = used
    assert fork(server, source, key="no-room").status_code == 201


def test_a_key_stands_for_one_fork(server):
    source = server.create()
    before = set(server.agent.boxes)
    first, again = (fork(server, source, key="fork", count=2).json() for _ in range(2))
    assert again["children"] == first["children"]
    assert len(set(server.agent.boxes) - before) == 2
    assert fork(server, source, key="fork", count=3).status_code == 409
    other = server.create()
    assert fork(server, other, key="fork", count=2).status_code == 409


def test_the_source_is_free_while_children_are_made(tmp_path):
    """The host goes on with the source long before its answer."""
    from wrennd.control.settings import Bounds

    with control_plane(tmp_path, bounds=Bounds(answer_s=60, pause_s=0)) as own:
        source = own.create()
        with own.agent.hold("fork_sandbox") as held:
            answer = fork(own, source, key="k", count=2)
            assert answer.status_code == 202
            ids = [child["sandbox"]["id"] for child in answer.json()["children"]]
            assert [own.state(each) for each in ids] == ["starting", "starting"]
            assert own.state(source) == "snapshotting"
            assert held.reached.wait(60)
            own.agent.change(source, "snapshotting", cause="")
            own.agent.change(source, "running", cause="")
            until(lambda: own.state(source) == "running", "the source")
            assert [own.state(each) for each in ids] == ["starting", "starting"]
        until(lambda: [own.state(each) for each in ids] == ["running"] * 2, "the children")
        again = fork(own, source, key="k", count=2)
        assert again.status_code == 201
        assert [child["sandbox"]["id"] for child in again.json()["children"]] == ids


def test_an_answer_that_is_lost_is_found_again(server):
    source = server.create()
    server.agent.lose("fork_sandbox")
    answer = fork(server, source, count=2)
    assert answer.status_code == 503
    listed = server.api.get("/v1/sandboxes").json()["sandboxes"]
    ids = [box["id"] for box in listed if box["source"] == source]
    assert len(ids) == 2
    until(lambda: [server.state(each) for each in ids] == ["running"] * 2, "the children")
    until(lambda: server.state(source) == "running", "the source")


def test_the_client(server):
    with Client(server.url, server.key) as client:
        box = client.create()
        made = client.fork(box.id, 2)
        assert made.source.id == box.id
        assert [child.sandbox.state for child in made.children] == ["running"] * 2
        assert made.children[0].unique
        client.pause(box.id)
        server.agent.fail("fork_sandbox", NoCapacity("no room"))
        with pytest.raises(NoCapacity):
            client.fork(box.id)
        client.destroy(box.id)
        with pytest.raises(WrongState):
            client.fork(box.id)

        async def awaited():
            async with AsyncClient(server.url, server.key) as other:
                return await other.fork(made.children[0].sandbox.id)

        below = asyncio.run(awaited())
        assert below.children[0].sandbox.source == made.children[0].sandbox.id
