"""/v1/capsules and /v1/snapshots: the older shapes."""

import pytest


def test_a_life(server):
    made = server.api.post("/v1/capsules", json={"timeout_sec": 5, "metadata": {"a": "b"}})
    assert made.status_code == 201
    capsule = made.json()
    assert (capsule["status"], capsule["template"], capsule["timeout_sec"]) == (
        "running",
        "base",
        60,
    )
    assert capsule["metadata"]["a"] == "b"
    assert capsule["created_at"].endswith("Z")
    at = f"/v1/capsules/{capsule['id']}"
    assert server.api.post(f"{at}/pause").json()["status"] == "paused"
    assert server.api.post(f"{at}/resume").json()["status"] == "running"
    assert server.api.post(f"{at}/ping").status_code == 204
    assert capsule["id"] in [each["id"] for each in server.api.get("/v1/capsules").json()]
    assert server.api.delete(at).status_code == 204
    assert server.api.get(at).json()["status"] == "stopped"
    assert capsule["id"] not in [each["id"] for each in server.api.get("/v1/capsules").json()]


@pytest.mark.parametrize("template", [None, "minimal", "minimal-ubuntu", "base"])
def test_names_of_the_default_template(server, template):
    body = {} if template is None else {"template": template}
    made = server.api.post("/v1/capsules", json=body)
    assert made.status_code == 201, made.text
    server.api.delete(f"/v1/capsules/{made.json()['id']}")


def test_errors_by_the_older_codes(server):
    box = server.create()
    at = f"/v1/capsules/{box}"

    def code(answer):
        return answer.status_code, answer.json()["error"]["code"]

    assert code(server.api.post("/v1/capsules", json={"vcpus": 0})) == (400, "invalid_request")
    assert code(server.api.post("/v1/capsules", json={"template": "none"})) == (404, "not_found")
    assert code(server.api.post(f"{at}/resume")) == (409, "invalid_state")
    assert code(server.anonymous.get(at)) == (401, "unauthorized")
    assert code(server.other.get(at)) == (404, "not_found")
    assert code(server.api.get("/v1/capsules/short")) == (400, "invalid_request")


def test_snapshots(server):
    box = server.create(vcpus=2, memory_mib=256)
    made = server.api.post("/v1/snapshots", json={"sandbox_id": box, "name": "frozen"})
    assert made.status_code == 201, made.text
    snapshot = made.json()
    assert (snapshot["name"], snapshot["type"], snapshot["vcpus"]) == ("frozen", "snapshot", 2)
    assert server.state(box) == "paused"
    again = server.api.post("/v1/snapshots", json={"sandbox_id": box, "name": "frozen"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "already_exists")
    over = server.api.post(
        "/v1/snapshots", params={"overwrite": True}, json={"sandbox_id": box, "name": "frozen"}
    )
    assert over.status_code == 201

    def names(kind):
        found = server.api.get("/v1/snapshots", params={"type": kind} if kind else {}).json()
        return [each["name"] for each in found]

    assert names("base") == ["base"]
    assert "frozen" in names("snapshot")
    assert {"base", "frozen"} <= set(names("base,snapshot"))
    assert server.api.get("/v1/snapshots", params={"type": "x"}).status_code == 400

    child = server.api.post("/v1/sandboxes", json={"template": "frozen"}).json()
    assert (child["vcpus"], child["memory_mib"], child["template"]) == (2, 256, "frozen")
    wrong = server.api.post("/v1/sandboxes", json={"template": "frozen", "vcpus": 1})
    assert wrong.status_code == 400

    assert server.api.delete("/v1/snapshots/frozen").status_code == 204
    assert server.api.delete("/v1/snapshots/frozen").status_code == 404
    assert server.api.delete("/v1/snapshots/base").status_code == 403
    assert server.api.post("/v1/sandboxes", json={"template": "frozen"}).status_code == 404


def test_a_snapshot_that_does_not_pause(server):
    box = server.create()
    body = {"sandbox_id": box, "pause": False}
    made = server.api.post("/v1/snapshots", json=body).json()
    assert made["name"].startswith("snap-")
    assert server.state(box) == "running"
    assert server.api.get(f"/v1/templates/{made['name']}").json()["sandbox_id"] == box
    assert server.api.delete(f"/v1/templates/{made['name']}").status_code == 204


def test_an_image_is_not_overwritten(server):
    box = server.create()
    body = {"sandbox_id": box, "name": "base"}
    refused = server.api.post("/v1/snapshots", params={"overwrite": True}, json=body)
    assert refused.status_code == 403
    assert server.state(box) == "running"


def test_each_project_has_names_of_its_own(server):
    mine, theirs = server.create(), server.other.post("/v1/sandboxes").json()["id"]
    for client, box in ((server.api, mine), (server.other, theirs)):
        made = client.post("/v1/snapshots", json={"sandbox_id": box, "name": "same"})
        assert made.status_code == 201, made.text
    assert server.other.get("/v1/templates/same").json()["sandbox_id"] == theirs
    assert server.api.get("/v1/templates/same").json()["sandbox_id"] == mine
    assert server.api.delete("/v1/snapshots/same").status_code == 204
    child = server.other.post("/v1/sandboxes", json={"template": "same"})
    assert child.status_code == 201
    assert server.api.post("/v1/sandboxes", json={"template": "same"}).status_code == 404
    assert server.other.delete("/v1/snapshots/same").status_code == 204


def test_another_projects_sandbox_is_not_frozen(server):
    body = {"sandbox_id": server.create(), "name": "stolen"}
    assert server.other.post("/v1/snapshots", json=body).status_code == 404


@pytest.mark.parametrize("span", ["5m", "1h", "6h", "24h", "30d"])
def test_statistics(server, span):
    server.create()
    found = server.api.get("/v1/capsules/stats", params={"range": span}).json()
    assert found["current"]["running_count"] >= 1
    assert len(found["series"]["labels"]) == len(found["series"]["running"]) > 0


def test_usage(server):
    found = server.api.get("/v1/capsules/usage").json()
    assert len(found["points"]) == 30
    span = {"from": "2026-01-01", "to": "2026-01-02"}
    assert len(server.api.get("/v1/capsules/usage", params=span).json()["points"]) == 2
    for wrong in (
        {"from": "2026-01-02", "to": "2026-01-01"},
        {"from": "2020-01-01"},
        {"from": "x"},
        {"to": "0001-01-01"},
    ):
        status = server.api.get("/v1/capsules/usage", params=wrong).status_code
        assert status in (200, 400), wrong
