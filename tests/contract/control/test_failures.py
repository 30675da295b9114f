"""What breaks between the API, the database and the host, and what is left then."""

import concurrent.futures
import contextlib
import sqlite3
import time

import pytest

from control_plane import control_plane, make_settings, over
from fakes.host_agent import FakeHostAgent, serving
from wrennd.control.settings import Bounds
from wrennd.control.store.engines import CONNECTIONS
from wrennd.core.deadline import Deadline
from wrennd.core.errors import GuestFailed, NoCapacity, VmmFailed


@pytest.fixture
def own(tmp_path):
    """A control plane for one test, whose database and host may be broken."""
    with control_plane(tmp_path) as server:
        yield server


def until(look, what):
    deadline = Deadline.after(60)
    while not look():
        deadline.check(what)
        time.sleep(0.02)


def code(answer):
    return answer.status_code, answer.json()["error"]["code"]


def test_a_create_that_fails_leaves_a_row_that_says_why(server):
    server.agent.fail("create_sandbox", NoCapacity("512 MiB are asked for, 1 MiB is free"))
    answer = server.api.post("/v1/sandboxes", headers={"Idempotency-Key": "fails"})
    assert code(answer) == (503, "no_capacity")
    (box,) = server.api.get("/v1/sandboxes?state=stopped&limit=1").json()["sandboxes"]
    assert "1 MiB is free" in box["error"]
    again = server.api.post("/v1/sandboxes", headers={"Idempotency-Key": "fails"})
    assert again.status_code == 201


@pytest.mark.parametrize("error", [VmmFailed("the VMM died"), GuestFailed("the guest hung")])
def test_a_pause_that_fails_leaves_it_running(server, error):
    box = server.create()
    server.agent.fail("pause_sandbox", error)
    assert code(server.api.post(f"/v1/sandboxes/{box}/pause")) == (502, error.code)
    assert server.state(box) == "running"
    assert server.api.post(f"/v1/sandboxes/{box}/pause").status_code == 200


def test_a_resume_that_fails_leaves_it_paused(server):
    box = server.create()
    server.api.post(f"/v1/sandboxes/{box}/pause")
    server.agent.fail("resume_sandbox", VmmFailed("it would not load"))
    assert server.api.post(f"/v1/sandboxes/{box}/resume").status_code == 502
    assert server.state(box) == "paused"


def test_a_snapshot_that_fails_leaves_no_template(server):
    box = server.create()
    server.agent.fail("create_snapshot", NoCapacity("the disk is full"))
    body = {"sandbox_id": box, "name": "failing"}
    assert server.api.post("/v1/snapshots", json=body).status_code == 503
    assert server.state(box) == "running"
    assert server.api.get("/v1/templates/failing").status_code == 404


@pytest.mark.parametrize(
    ("method", "step", "end"),
    [
        ("pause_sandbox", "pause", "paused"),
        ("resume_sandbox", "resume", "running"),
        ("destroy_sandbox", "", "stopped"),
    ],
)
def test_an_answer_that_is_lost_is_found_again(server, method, step, end):
    box = server.create()
    at = f"/v1/sandboxes/{box}"
    if step == "resume":
        server.api.post(f"{at}/pause")
    server.agent.lose(method)
    answer = server.api.post(f"{at}/{step}") if step else server.api.delete(at)
    assert code(answer) == (503, "unavailable")
    until(lambda: server.state(box) == end, f"{end} after a lost answer")


def test_a_create_whose_answer_is_lost_is_found_again(server):
    server.agent.lose("create_sandbox")
    assert server.api.post("/v1/sandboxes", json={"metadata": {"lost": "1"}}).status_code == 503

    def is_running():
        found = server.api.get("/v1/sandboxes", params={"metadata.lost": "1"}).json()
        return [box["state"] for box in found["sandboxes"]] == ["running"]

    until(is_running, "the sandbox whose answer was lost")


def test_operations_go_on_when_the_caller_has_waited_enough(tmp_path):
    bounds = Bounds(answer_s=0.05, pause_s=0.05, snapshot_s=0.05)
    with control_plane(tmp_path, bounds=bounds) as server:
        with server.agent.hold("create_sandbox"):
            made = server.api.post("/v1/sandboxes")
            assert (made.status_code, made.json()["state"]) == (202, "starting")
            capsule = server.api.post("/v1/capsules")
            at = f"/v1/sandboxes/{made.json()['id']}"
            assert code(server.api.post(f"{at}/pause")) == (409, "wrong_state")
        assert (capsule.status_code, capsule.json()["status"]) in [
            (201, "starting"),
            (201, "running"),
        ]
        # What is done inside waits for it.
        assert server.api.post(f"{at}/exec", json={"cmd": "true"}).json()["exit_code"] == 0
        with server.agent.hold("pause_sandbox"):
            assert server.api.post(f"{at}/pause").json()["state"] == "pausing"
        until(lambda: server.api.get(at).json()["state"] == "paused", "the pause")
        with server.agent.hold("resume_sandbox"):
            assert server.api.post(f"{at}/resume").status_code == 202
        assert server.api.post(f"{at}/exec", json={"cmd": "true"}).status_code == 200
        body = {"sandbox_id": made.json()["id"], "name": "slow"}
        with server.agent.hold("create_snapshot"):
            assert server.api.post("/v1/snapshots", json=body).status_code == 202
        until(lambda: server.api.get("/v1/templates/slow").status_code == 200, "the snapshot")
        with server.agent.hold("destroy_sandbox"):
            assert server.api.delete(at).json()["state"] == "destroying"
        until(lambda: server.api.get(at).json()["state"] == "stopped", "the end")


@pytest.mark.parametrize("step", ["pause", "resume"])
def test_of_two_at_once_one_wins(server, step):
    box = server.create()
    at = f"/v1/sandboxes/{box}"
    if step == "resume":
        server.api.post(f"{at}/pause")
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        server.agent.hold(step + "_sandbox") as held,
    ):
        first = pool.submit(server.api.post, f"{at}/{step}")
        assert held.reached.wait(60)
        second = server.api.post(f"{at}/{step}")
        assert code(second) == (409, "wrong_state")
        assert f"{step[:-1]}ing" in second.json()["error"]["message"]
        held.released.set()
        assert first.result().status_code == 200


# What is asked for while something else is done, by its route; and what the second is told.
DONE = {
    "pause": ("POST", "/pause", None),
    "resume": ("POST", "/resume", None),
    "destroy": ("DELETE", "", None),
    "snapshot": ("POST", "/v1/snapshots", None),
    "exec": ("POST", "/exec", {"cmd": "true"}),
    "write": ("PUT", "/files?path=/tmp/x", None),
    "extend": ("POST", "/extend", {"seconds": 60}),
    "ping": ("POST", "/ping", None),
}
METHODS = {
    "pause": "pause_sandbox",
    "resume": "resume_sandbox",
    "destroy": "destroy_sandbox",
    "snapshot": "create_snapshot",
    "exec": "exec",
}
PASSING = {
    "pause": "pausing",
    "resume": "resuming",
    "destroy": "destroying",
    "snapshot": "snapshotting",
    "exec": "running",
}
# Neither changes what the sandbox is: they go on beside everything but its end.
BESIDE = {"extend", "ping"}


def ask(server, box, what):
    method, path, body = DONE[what]
    at = path if path.startswith("/v1/") else f"/v1/sandboxes/{box}{path}"
    if what == "snapshot":
        body = {"sandbox_id": box, "name": frozen_name(box)}
    return server.api.request(method, at, json=body)


@pytest.mark.parametrize("second", DONE)
@pytest.mark.parametrize("first", METHODS)
def test_two_of_everything_at_once(server, first, second):
    """One wins, the other is told the state; a destruction wins over all."""
    box = server.create()
    try:
        hold_two(server, box, first, second)
    finally:
        server.api.delete(f"/v1/snapshots/{frozen_name(box)}")
        server.api.delete(f"/v1/sandboxes/{box}")


def frozen_name(box):
    return f"s-{box[:12]}"


def hold_two(server, box, first, second):
    if first == "resume":
        ask(server, box, "pause")
    with (
        concurrent.futures.ThreadPoolExecutor(2) as pool,
        server.agent.hold(METHODS[first]) as held,
    ):
        one = pool.submit(ask, server, box, first)
        assert held.reached.wait(60)
        other = pool.submit(ask, server, box, second)
        if first == "resume" and second in ("exec", "write"):
            held.released.set()  # it waits for the resume
        answer = other.result()
        held.released.set()
        won = one.result()
    told = f"{second} while it is {PASSING[first]}: {answer.status_code} {answer.text}"
    if second == "destroy":
        assert answer.status_code == 204, told
        assert won.status_code in ((204,) if first == "destroy" else (404, 409)), won.text
        until(lambda: server.state(box) == "stopped", "its end")
        assert box not in server.agent.boxes
        return
    # A command is ended by what ends or freezes its sandbox, and begins nothing else.
    assert won.status_code in (200, 201, 204) or (first == "exec" and code(won)[0] == 409), won.text
    if first == "exec" or (first == "resume" and second in ("exec", "write")):
        assert answer.status_code in (200, 201, 204, 409), told
    elif second in BESIDE and first != "destroy":
        assert answer.status_code in (200, 204, 409), told
    else:
        assert code(answer) == (409, "wrong_state"), told
        assert PASSING[first] in answer.json()["error"]["message"]


def test_destroying_while_it_is_made(server):
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        server.agent.hold("create_sandbox") as held,
    ):
        first = pool.submit(server.api.post, "/v1/sandboxes", json={"metadata": {"k": "d"}})
        assert held.reached.wait(60)
        (box,) = server.api.get("/v1/sandboxes?metadata.k=d").json()["sandboxes"]
        assert server.api.delete(f"/v1/sandboxes/{box['id']}").status_code == 204
        held.released.set()
        assert first.result().json()["state"] == "stopped"
    # It was made after all: what was destroyed is removed again.
    until(lambda: box["id"] not in server.agent.boxes, "its end")
    assert server.state(box["id"]) == "stopped"


def test_what_the_host_does_by_itself_is_followed(server):
    box = server.create()
    server.agent.change(box, "paused")
    until(lambda: server.state(box) == "paused", "the pause by expiry")
    assert server.api.get(f"/v1/sandboxes/{box}").json()["cause"] == "expiry"
    server.agent.change(box, "running")
    server.agent.change(box, "error", error="the VMM was killed")
    until(lambda: server.state(box) == "error", "the error")
    assert server.api.get(f"/v1/sandboxes/{box}").json()["error"] == "the VMM was killed"
    del server.agent.boxes[box]
    until(lambda: server.state(box) == "missing", "the loss")
    assert server.api.delete(f"/v1/sandboxes/{box}").status_code == 204


def test_nothing_is_written_while_nothing_happens(own):
    """But that the host was seen, which is not worth a write each turn."""
    own.create()
    own.wait_until_ready()

    def turns():
        return own.agent.calls.count("list_sandboxes")

    with contextlib.closing(sqlite3.connect(own.database_file)) as looking:

        def version():
            return looking.execute("PRAGMA data_version").fetchone()[0]

        def quiet_turns():
            """How many there were until something was written, or twenty."""
            first, before = version(), turns()
            until(lambda: turns() - before >= 20 or version() != first, "turns")
            return turns() - before

        until(lambda: quiet_turns() >= 20, "twenty turns without a write")


def test_a_row_that_is_behind_is_no_obstacle(server):
    """The host's record moved on; what stands in the way of nothing is asked for again."""
    box = server.create()
    server.agent.boxes[box].facts.revision += 3
    assert server.api.post(f"/v1/sandboxes/{box}/pause").status_code == 200


def test_sandboxes_that_were_made_without_the_server(server):
    box, command = "k" * 20, "w" * 20
    server.agent.put(box)
    server.agent.put(command, is_kept=False)
    until(lambda: server.api.get(f"/v1/sandboxes/{box}").status_code == 200, "its adoption")
    assert server.api.post(f"/v1/sandboxes/{box}/exec", json={"cmd": "true"}).status_code == 200
    assert server.api.get(f"/v1/sandboxes/{command}").status_code == 404
    del server.agent.boxes[command]


def test_a_host_that_does_not_answer_changes_only_its_own_status(tmp_path):
    settings = make_settings(tmp_path)
    agent = FakeHostAgent()
    with serving(agent, settings.agent), over(agent, settings) as server:
        box = server.create()

    with over(agent, settings) as server:
        until(
            lambda: server.api.get("/v1/hosts/local").json()["status"] == "unreachable", "its loss"
        )
        assert server.state(box) == "running"
        assert server.anonymous.get("/health").status_code == 503
        at = f"/v1/sandboxes/{box}"
        assert code(server.api.post(f"{at}/pause")) == (503, "unavailable")
        assert server.state(box) == "running"
        assert code(server.api.post(f"{at}/exec", json={"cmd": "true"})) == (503, "unavailable")
        assert code(server.api.post("/v1/sandboxes")) == (503, "unavailable")
        assert code(server.api.delete(at)) == (503, "unavailable")
        assert server.state(box) == "destroying"
        with serving(agent, settings.agent):
            until(lambda: server.state(box) == "stopped", "the destruction that was asked for")
            until(lambda: server.anonymous.get("/health").status_code == 200, "its return")
            assert server.create()


def test_another_installations_agent_is_not_believed(tmp_path):
    settings = make_settings(tmp_path)
    with serving(first := FakeHostAgent(), settings.agent), over(first, settings) as server:
        box = server.create()
    with serving(other := FakeHostAgent(), settings.agent), over(other, settings) as server:
        until(lambda: server.api.get("/v1/hosts/local").json()["status"] == "foreign", "its word")
        assert server.state(box) == "running"


def test_a_restart_forgets_nothing(tmp_path):
    settings = make_settings(tmp_path)
    with serving(agent := FakeHostAgent(), settings.agent):
        with over(agent, settings) as server:
            box = server.create(metadata={"a": "b"})
            server.api.post(f"/v1/sandboxes/{box}/pause")
            server.api.post("/v1/snapshots", json={"sandbox_id": box, "name": "kept"})
        with over(agent, settings) as server:
            assert server.api.get(f"/v1/sandboxes/{box}").json()["metadata"] == {"a": "b"}
            assert server.state(box) == "paused"
            assert server.api.get("/v1/templates/kept").json()["sandbox_id"] == box


def test_a_locked_database(own):
    box = own.create()
    with sqlite3.connect(own.database_file, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        # Readers go on in WAL; a writer waits, and is told.
        assert own.api.get(f"/v1/sandboxes/{box}").status_code == 200
        assert code(own.api.post(f"/v1/sandboxes/{box}/pause")) == (503, "unavailable")
        other.execute("ROLLBACK")
    other.close()
    assert own.state(box) == "running"
    assert own.api.post(f"/v1/sandboxes/{box}/pause").status_code == 200


def test_a_database_that_is_gone(own):
    box = own.create()
    away = own.database_file.with_name("away.db")
    own.database_file.rename(away)
    assert code(own.api.get(f"/v1/sandboxes/{box}")) == (503, "unavailable")
    assert own.anonymous.get("/health").status_code == 503
    with own.agent.hold("get_host"):
        away.rename(own.database_file)
    assert own.state(box) == "running"
    until(lambda: own.anonymous.get("/health").status_code == 200, "its return")


def test_a_database_that_is_full(own):
    box = own.create()
    with sqlite3.connect(own.database_file) as other:
        pages = other.execute("PRAGMA page_count").fetchone()[0]
    other.close()

    def fill(connection):
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    for _ in range(2 * CONNECTIONS):  # a limit holds for its connection, and they take turns
        own.database.run_here(fill)
    big = {"metadata": {f"k{n}": "x" * 64 for n in range(20)}}
    until(
        lambda: own.api.post("/v1/sandboxes", json=big).status_code == 503,
        "a database that is full",
    )
    assert own.api.get(f"/v1/sandboxes/{box}").json()["state"] == "running"
    assert len(own.agent.boxes) == len(own.api.get("/v1/sandboxes").json()["sandboxes"])
