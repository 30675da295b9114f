"""/metrics and /envs."""

import json
import time


def test_metrics(agent):
    status, headers, body = agent.http("GET", "/metrics")
    assert (status, headers["content-type"]) == (200, "application/json")
    found = json.loads(body)
    assert set(found) == {
        "ts",
        "cpu_count",
        "cpu_used_pct",
        "mem_total",
        "mem_used",
        "mem_cache",
        "mem_total_mib",
        "mem_used_mib",
        "disk_used",
        "disk_total",
    }
    assert abs(found["ts"] - time.time()) < 60
    assert found["cpu_count"] >= 1
    assert 0 <= found["cpu_used_pct"] <= 100
    assert 0 < found["mem_used"] < found["mem_total"]
    assert found["mem_total_mib"] == found["mem_total"] >> 20
    assert found["mem_used_mib"] == found["mem_used"] >> 20
    assert 0 < found["disk_used"] < found["disk_total"]


def test_a_busy_processor_is_seen(agent):
    agent.http("GET", "/metrics")
    agent.sh("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")
    assert json.loads(agent.http("GET", "/metrics")[2])["cpu_used_pct"] > 0


def envs(agent):
    """Without the name that a sandbox has given to its guest for good."""
    found = json.loads(agent.http("GET", "/envs")[2])
    return {name: value for name, value in found.items() if name != "WRENN_SANDBOX_ID"}


def test_envs(fresh_agent):
    assert envs(fresh_agent) == {}
    fresh_agent.http("POST", "/init", json.dumps({"envVars": {"A": "ü", "B": ""}}))
    assert envs(fresh_agent) == {"A": "ü", "B": ""}
    fresh_agent.http("POST", "/init", json.dumps({"envVars": {"C": "1"}}))
    assert envs(fresh_agent) == {"C": "1"}


def test_they_are_behind_the_token(fresh_agent):
    fresh_agent.http("POST", "/init", json.dumps({"accessToken": "secret"}))
    for method, path in (
        ("GET", "/metrics"),
        ("GET", "/envs"),
        ("POST", "/freeze"),
        ("POST", "/unfreeze"),
        ("POST", "/files/compose"),
    ):
        assert fresh_agent.http(method, path)[0] == 401
        assert fresh_agent.http("DELETE", path, headers={"X-Access-Token": "secret"})[0] == 405
