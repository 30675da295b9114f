"""What every route has in common: keys, projects, failures in our shape, limits."""

import concurrent.futures
import json
import re

import httpx
import pytest

from wrennd.control.store import keys
from wrennd.core.errors import WrongState

SOMEBODY = "a" * 20


def error_of(answer):
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "e2b_"},
        {"X-API-Key": "e2b_" + "0" * 40},
        {"X-API-Key": "x" * 5000},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic eDp5"},
        {"Authorization": "Bearer e2b_" + "f" * 40},
    ],
)
def test_no_key_that_counts(server, headers):
    answer = server.anonymous.get("/v1/sandboxes", headers=headers)
    assert error_of(answer) == (401, "unauthorized")


def test_either_header(server):
    for headers in ({"X-API-Key": server.key}, {"Authorization": f"bearer {server.key}"}):
        assert server.anonymous.get("/v1/sandboxes", headers=headers).status_code == 200


def test_unknown_routes_and_methods(server):
    assert error_of(server.api.get("/v1/nothing")) == (404, "not_found")
    assert error_of(server.api.put("/v1/sandboxes")) == (405, "method_not_allowed")
    assert server.api.put("/v1/sandboxes").headers["allow"]
    assert server.api.get("/nothing").json()["code"] == 404
    assert error_of(server.api.get("/v1/sandboxes/")) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/ping"),
        ("GET", "/events"),
        ("GET", "/timings"),
        ("GET", "/metrics"),
        ("GET", "/processes"),
        ("DELETE", "/processes/1"),
        ("GET", "/files?path=/etc/hostname"),
    ],
)
@pytest.mark.parametrize("whose", ["nobody", "theirs"])
def test_what_is_not_ours_is_not_there(server, method, path, whose):
    sandbox = SOMEBODY if whose == "nobody" else server.create()
    client = server.api if whose == "nobody" else server.other
    assert error_of(client.request(method, f"/v1/sandboxes/{sandbox}{path}")) == (404, "not_found")
    if whose == "theirs":
        assert server.state(sandbox) == "running"


@pytest.mark.parametrize("sandbox", ["x", "A" * 20, "a" * 21, "..%2f..", "%00" * 20, "a" * 3000])
def test_what_is_no_id(server, sandbox):
    assert server.api.get(f"/v1/sandboxes/{sandbox}").status_code in (400, 404)


@pytest.mark.parametrize(
    "body",
    [
        {"vcpus": 0},
        {"vcpus": 33},
        {"vcpus": "2"},
        {"vcpus": True},
        {"vcpus": 1.5},
        {"vcpus": 10**30},
        {"memory_mib": 1},
        {"memory_mib": -512},
        {"memory_mib": 1 << 60},
        {"disk_mib": 0},
        {"template": ""},
        {"template": "../../etc"},
        {"template": "x" * 64},
        {"template": 5},
        {"template": "a\0"},
        {"env": {"A B": "c"}},
        {"env": {"A": 5}},
        {"env": {"A": "\0"}},
        {"env": ["A"]},
        {"dns": ["x" * 100]},
        {"dns": "1.1.1.1"},
        {"expiry": {"seconds": -1}},
        {"expiry": {"after": "never"}},
        {"expiry": {"seconds": 1 << 40}},
        {"expiry": 5},
        {"metadata": {"a b": "c"}},
        {"metadata": {"a": "x" * 65}},
        {"metadata": {str(n): "" for n in range(21)}},
        {"unknown": 1},
        [],
        "x",
        5,
    ],
)
def test_wrong_wishes(server, body):
    answer = server.api.post("/v1/sandboxes", json=body)
    assert error_of(answer) == (400, "invalid_argument"), answer.text


def test_what_a_message_does_not_say(server):
    secret = "s3cret" * 20
    answer = server.api.post("/v1/sandboxes", json={"env": {"A": {"password": secret}}})
    assert answer.status_code == 400
    assert secret not in answer.text


def test_an_unknown_template(server):
    assert error_of(server.api.post("/v1/sandboxes", json={"template": "none"})) == (
        404,
        "not_found",
    )


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": "x"},
        {"cursor": "x"},
        {"cursor": "LTEuYQ"},
        {"cursor": "é"},
        {"state": "sleeping"},
    ],
)
def test_wrong_queries(server, query):
    assert server.api.get("/v1/sandboxes", params=query).status_code == 400


def test_lists(server):
    made = [server.create(metadata={"list": "yes", "n": str(n)}) for n in range(5)]
    server.api.post(f"/v1/sandboxes/{made[0]}/pause")
    found, cursor = [], ""
    while True:
        query = {"metadata.list": "yes", "limit": 2, "cursor": cursor}
        page = server.api.get("/v1/sandboxes", params=query).json()
        found += [box["id"] for box in page["sandboxes"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert found == made[::-1]
    paused = {"metadata.list": "yes", "state": "paused,error"}
    page = server.api.get("/v1/sandboxes", params=paused).json()
    assert [box["id"] for box in page["sandboxes"]] == made[:1]
    one = server.api.get("/v1/sandboxes", params={"metadata.list": "yes", "metadata.n": "3"})
    assert [box["id"] for box in one.json()["sandboxes"]] == [made[3]]


def test_idempotency(server):
    headers = {"Idempotency-Key": "once-1"}
    first = server.api.post("/v1/sandboxes", json={"vcpus": 2}, headers=headers)
    again = server.api.post("/v1/sandboxes", json={"vcpus": 2}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    other = server.api.post("/v1/sandboxes", json={"vcpus": 1}, headers=headers)
    assert error_of(other) == (409, "already_exists")
    theirs = server.other.post("/v1/sandboxes", json={"vcpus": 2}, headers=headers)
    assert theirs.json()["id"] != first.json()["id"]
    wrong = {"Idempotency-Key": "x" * 300}
    assert server.api.post("/v1/sandboxes", headers=wrong).status_code == 400


def test_two_that_are_sent_at_once_make_one(server):
    def make(_):
        headers = {"Idempotency-Key": "at-once"}
        return server.api.post("/v1/sandboxes", headers=headers).json()["id"]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(make, range(4)))) == 1


def test_keys(server):
    made = server.api.post("/v1/keys", json={"name": "for ci"})
    assert made.status_code == 201
    key = made.json()["key"]
    assert keys.KEY.fullmatch(key)
    with httpx.Client(base_url=server.url, headers={"X-API-Key": key}, trust_env=False) as client:
        assert client.get("/v1/sandboxes").status_code == 200
        listed = {each["id"]: each for each in client.get("/v1/keys").json()["keys"]}
        mine = listed[made.json()["id"]]
        assert (mine["name"], mine["prefix"]) == ("for ci", key[:8])
        assert key not in json.dumps(listed)
        assert server.api.delete(f"/v1/keys/{mine['id']}").status_code == 204
        assert client.get("/v1/sandboxes").status_code == 401
    assert server.api.delete(f"/v1/keys/{SOMEBODY}").status_code == 404


def test_only_administrators_go_beyond_their_project(server):
    assert server.other.get("/v1/hosts").status_code == 403
    assert server.other.post("/v1/keys", json={"name": "x", "project": "p"}).status_code == 403
    assert server.other.post("/v1/keys", json={"name": "x"}).json()["project"] == "other"
    mine = server.api.get("/v1/keys").json()["keys"][0]["id"]
    assert server.other.delete(f"/v1/keys/{mine}").status_code == 404
    made = server.api.post("/v1/keys", json={"name": "x", "project": "p"})
    assert made.json()["project"] == "p"


def test_hosts(server):
    (host,) = server.api.get("/v1/hosts").json()["hosts"]
    assert (host["id"], host["status"], host["tier"]) == ("local", "online", "emulated")
    assert host["capacity"]["cpus"] == 4
    assert server.api.get("/v1/hosts/local").json()["id"] == "local"
    assert error_of(server.api.get("/v1/hosts/none")) == (404, "not_found")


def test_what_takes_disk_on_a_host(server):
    box = server.create()
    found = server.api.get("/v1/hosts/local/space").json()
    assert {"kind": "image", "name": "base"}.items() <= found["holdings"][0].items()
    assert box in [each["name"] for each in found["holdings"] if each["kind"] == "sandbox"]
    assert found["total_bytes"] > 0
    assert error_of(server.api.get("/v1/hosts/none/space")) == (404, "not_found")
    assert server.other.get("/v1/hosts/local/space").status_code == 403


def test_prune(server):
    box = server.create()
    made = server.api.post("/v1/snapshots", json={"sandbox_id": box, "name": "unused"})
    assert made.status_code == 201
    at = "/v1/hosts/local/prune"
    assert server.api.post(at, json={}).json()["items"] == []
    for dry_run in (True, False):
        assert server.api.get("/v1/templates/unused").status_code == 200
        asked = {"templates": True, "dry_run": dry_run}
        names = [each["name"] for each in server.api.post(at, json=asked).json()["items"]]
        assert "unused" in names
    assert server.api.get("/v1/templates/unused").status_code == 404
    assert server.api.get(f"/v1/sandboxes/{box}").status_code == 200


def test_only_administrators_prune(server):
    assert server.other.post("/v1/hosts/local/prune", json={}).status_code == 403
    assert server.api.post("/v1/hosts/none/prune", json={}).status_code == 404
    assert server.api.post("/v1/hosts/local/prune", json={"everything": 1}).status_code == 400


def test_prune_while_a_setup_works(server):
    server.agent.fail("prune", WrongState("a setup is at work"))
    assert error_of(server.api.post("/v1/hosts/local/prune", json={})) == (409, "wrong_state")


def test_extend(server):
    box = server.create(expiry={"after": "deadline", "seconds": 600, "action": "destroy"})
    at = f"/v1/sandboxes/{box}"
    shown = server.api.get(at).json()
    assert shown["expiry"] == {"after": "deadline", "seconds": 600, "action": "destroy"}
    assert shown["expires_at"] > shown["created_at"]
    longer = server.api.post(f"{at}/extend", json={"seconds": 7200}).json()
    assert longer["expiry"]["seconds"] == 7200
    assert longer["expiry"]["action"] == "destroy"
    assert longer["expires_at"] > shown["expires_at"]
    assert server.api.post(f"{at}/extend", json={}).json()["expiry"] == longer["expiry"]
    never = server.api.post(f"{at}/extend", json={"expiry": {}}).json()
    assert (never["expiry"]["seconds"], never["expires_at"]) == (0, None)


def test_events_and_timings(server):
    box = server.create()
    server.api.post(f"/v1/sandboxes/{box}/pause")
    events = server.api.get(f"/v1/sandboxes/{box}/events").json()["events"]
    assert [event["kind"] for event in events] == ["pause", "create"]
    timings = server.api.get(f"/v1/sandboxes/{box}/timings").json()["operations"]
    assert [each["operation"] for each in timings] == ["pause", "create"]
    assert [phase["name"] for phase in timings[0]["phases"]] == ["freeze", "store"]


def test_events_as_they_happen(server):
    headers = {"X-API-Key": server.key}
    with httpx.stream(
        "GET", f"{server.url}/v1/events/stream", headers=headers, timeout=60, trust_env=False
    ) as feed:
        lines = feed.iter_lines()
        assert next(lines) == "event: connected"
        box = server.create()
        for line in lines:
            if line.startswith("data:") and box in line:
                event = json.loads(line[5:])
                break
    assert (event["event"], event["outcome"]) == ("capsule.create", "success")
    assert event["sandbox"]["status"] == "running"


def test_health_and_metrics(server):
    server.wait_until_ready()
    assert server.anonymous.get("/health").json() == {
        "status": "ok",
        "database": "ok",
        "hosts": {"local": "ok"},
    }
    server.create()
    shown = server.anonymous.get("/metrics").text
    assert re.search(r'wrenn_operation_seconds_count\{operation="create",result="ok"\} \d', shown)
    assert 'route="/v1/sandboxes"' in shown
    assert "wrenn_host_online" in shown


def test_a_long_body_that_is_not_announced(server):
    pieces = (b" " * 65536 for _ in range(40))
    answer = server.api.post("/v1/sandboxes", content=pieces)
    assert error_of(answer) == (413, "too_large")


def test_the_document_has_every_route_and_none_of_the_frameworks_errors(server):
    document = server.anonymous.get("/openapi.json").json()
    assert "/v1/capsules/{sandbox_id}/exec" in document["paths"]
    assert '"422"' not in json.dumps(document)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/v1"):
                assert "401" in operation["responses"], (method, path)
