"""/v1/sandboxes: a sandbox's life through the API."""

import base64


def test_a_life(server):
    made = server.api.post("/v1/sandboxes", json={"metadata": {"a": "1"}, "vcpus": 2})
    assert made.status_code == 201
    box = made.json()
    assert (box["state"], box["vcpus"], box["metadata"]) == ("running", 2, {"a": "1"})
    assert [phase["name"] for phase in box["timings"]["phases"]] == ["slot", "vmm", "envd"]
    at = f"/v1/sandboxes/{box['id']}"
    assert made.headers["Location"] == at

    ran = server.api.post(f"{at}/exec", json={"cmd": "echo", "args": ["hello"]})
    assert ran.json()["stdout"] == "hello\n"
    assert ran.json()["exit_code"] == 0

    paused = server.api.post(f"{at}/pause")
    assert paused.status_code == 200
    assert paused.json()["state"] == "paused"
    assert paused.json()["address"] == ""
    refused = server.api.post(f"{at}/exec", json={"cmd": "true"})
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "wrong_state"
    assert "paused" in refused.json()["error"]["message"]

    resumed = server.api.post(f"{at}/resume")
    assert resumed.json()["state"] == "running"
    assert resumed.json()["generation"] == 1

    assert server.api.delete(at).status_code == 204
    assert server.api.get(at).json()["state"] == "stopped"
    assert server.api.delete(at).status_code == 204
    assert box["id"] not in server.agent.boxes


def test_its_console(server):
    box = server.create()
    at = f"/v1/sandboxes/{box}/logs"
    server.agent.boxes[box].console = bytes(300_000) + b"\xff the end\n"
    content, offset, consoles = b"", 0, set()
    while piece := server.api.get(at, params={"offset": offset}).json():
        content += base64.b64decode(piece["content"])
        consoles.add(piece["console"])
        if piece["next"] == offset:
            break
        offset = piece["next"]
    assert content == server.agent.boxes[box].console
    assert len(consoles) == 1
    assert server.other.get(at).status_code == 404
    assert server.api.get(at, params={"offset": -1}).status_code == 400
    server.api.post(f"/v1/sandboxes/{box}/pause")
    assert server.api.get(at).status_code == 409
