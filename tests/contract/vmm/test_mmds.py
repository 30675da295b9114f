"""The metadata service: its data, its limits, and its configuration up to the serving itself."""

import json
import os

import pytest

from vmm_server import Server, is_ours

SERDE = "An error occurred when deserializing the json body of a request: "
CONFIG = "MMMDS config error: "
TOO_LARGE = {"fault_message": "MMDS limit exceeded error: The MMDS patch request doesn't fit."}
DEPRECATION = "Deprecation: true"


def put(server, value):
    server.done("PUT", "/mmds", json.dumps(value).encode())


def test_nothing_at_first(server):
    assert server.get("/mmds") == {}
    fault = server.patch("/mmds", {"a": 1}).fault
    assert fault == "MMDS error: The MMDS data store is not initialized."


def test_data_is_answered_with_sorted_keys(server):
    put(server, {"b": 1, "a": {"z": [None, True, "é\n"], "y": 1.0}})
    body = server.request("GET", "/mmds").body
    assert body == '{"a":{"y":1.0,"z":[null,true,"é\\n"]},"b":1}'.encode()
    assert server.request("GET", "/mmds/a").body == body, "what follows the path means nothing"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("1e16", "1e+16"),
        ("1e15", "1000000000000000.0"),
        ("0.00001", "0.00001"),
        ("1E-6", "1e-6"),
        ("-0", "-0.0"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "1.8446744073709552e+19"),
        ("null", "{}"),
        ('"text"', '"text"'),
        ('{"a":1,"a":2}', '{"a":2}'),
    ],
)
def test_any_value_is_data(server, given, shown):
    server.done("PUT", "/mmds", given.encode())
    assert server.request("GET", "/mmds").body == shown.encode()


def test_a_patch_is_merged(server):
    put(server, {"a": {"b": 1, "c": 2}, "d": [1]})
    server.done("PATCH", "/mmds", {"a": {"b": None, "e": {"f": None}}, "d": [None]})
    assert server.get("/mmds") == {"a": {"c": 2, "e": {}}, "d": [None]}
    server.done("PATCH", "/mmds", b"7")
    assert server.get("/mmds") == 7
    put(server, None)
    server.done("PATCH", "/mmds", {"a": 1})
    assert server.get("/mmds") == {"a": 1}


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_data_that_is_no_json(server, method):
    fault = server.request(method, "/mmds", b'{"a":1,}').fault
    assert fault == f"{SERDE}trailing comma at line 1 column 8."


def test_more_data_than_may_be(leak_check, tmp_path):
    with Server(tmp_path, "--mmds-size-limit", "15") as server:
        server.wait_for_api()
        put(server, {"a": "1234567"})
        for method, body in (("PUT", {"a": "12345678"}), ("PATCH", {"b": 1})):
            response = server.request(method, "/mmds", body)
            assert (response.status, response.json) == (413, TOO_LARGE)
        assert server.get("/mmds") == {"a": "1234567"}


def test_the_limit_is_that_of_bodies_unless_it_is_named(leak_check, tmp_path):
    with Server(tmp_path, "--http-api-max-payload-size", "20") as server:
        server.wait_for_api()
        put(server, {"a": "1234567890"})
        assert server.patch("/mmds", {"b": 12345678}).status == 413


def test_data_out_of_a_file(leak_check, tmp_path):
    path = tmp_path / "metadata.json"
    path.write_text('{"from": "file"}')
    with Server(tmp_path, "--metadata", os.fspath(path)) as server:
        assert server.wait_for_api().get("/mmds") == {"from": "file"}


@pytest.mark.parametrize("content", [None, "{", '{"a":"much too long"}'])
def test_a_file_of_data_that_can_not_be(leak_check, tmp_path, content):
    """Firecracker 1.16.1 panics or ends, later; ours names it as a wrong configuration."""
    path = tmp_path / "metadata.json"
    if content is not None:
        path.write_text(content)
    with Server(tmp_path, "--metadata", os.fspath(path), "--mmds-size-limit", "9") as server:
        assert server.exit_code() == (152 if is_ours() else pytest.approx(0, abs=255))
        assert server.process.exit_code != 0


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({}, f"{SERDE}missing field `network_interfaces` at line 1 column 2."),
        (
            {"version": "V3"},
            f"{SERDE}unknown variant `V3`, expected `V1` or `V2` at line 1 column 16.",
        ),
        (
            {"ipv4_address": "169.254.1.400"},
            f"{SERDE}invalid IPv4 address syntax at line 1 column 32.",
        ),
        (
            {"x": 1},
            f"{SERDE}unknown field `x`, expected one of `version`, `network_interfaces`, "
            "`ipv4_address`, `imds_compat` at line 1 column 4.",
        ),
        (
            {"network_interfaces": []},
            f"{CONFIG}The list of network interface IDs that allow forwarding MMDS requests is "
            "empty.",
        ),
        (
            {"network_interfaces": ["eth9"]},
            f"{CONFIG}The list of network interface IDs provided contains at least one ID that "
            "does not correspond to any existing network interface.",
        ),
        (
            {"network_interfaces": ["eth9"], "ipv4_address": "169.254.255.1"},
            f"{CONFIG}The MMDS IPv4 address is not link local.",
        ),
    ],
)
def test_configurations_that_can_not_be(server, config, fault):
    assert server.put("/mmds/config", config).fault == fault
    assert server.get("/vm/config")["mmds-config"] is None


@pytest.mark.parametrize(("version", "is_deprecated"), [(None, True), ("V1", True), ("V2", False)])
def test_the_first_version_is_deprecated(server, version, is_deprecated):
    config = {"network_interfaces": [], **({"version": version} if version else {})}
    head = server.put("/mmds/config", config).head
    assert (DEPRECATION in head.split("\r\n")) is is_deprecated


@pytest.mark.root
def test_serving_it_to_the_guest(server, taps):
    server.done("PUT", "/network-interfaces/eth0", {"iface_id": "eth0", "host_dev_name": taps[0]})
    config = {"network_interfaces": ["eth0"], "version": "V2"}
    response = server.put("/mmds/config", config)
    shown = server.get("/vm/config")["mmds-config"]
    if is_ours():
        refusal = "serving mmds to the guest is not supported by the QEMU-based VMM."
        assert response.fault == f"{CONFIG}{refusal}"
        assert shown is None
    else:
        assert response.status == 204
        assert shown == {**config, "ipv4_address": "169.254.169.254", "imds_compat": False}
