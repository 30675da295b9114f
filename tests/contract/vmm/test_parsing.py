"""From a request to its meaning: ids, bodies, and the texts that say what is wrong with them."""

import pytest

SERDE = "An error occurred when deserializing the json body of a request: "


@pytest.mark.parametrize(
    ("method", "path", "body", "fault"),
    [
        ("GET", "/", {}, "GET request cannot have a body."),
        ("GET", "/nothing", {}, "GET request cannot have a body."),
        ("PUT", "/machine-config", None, "Empty PUT request."),
        ("PUT", "/nothing", None, "Empty PUT request."),
        ("PATCH", "/machine-config", None, "Empty PATCH request."),
        ("PATCH", "/machine-config", {}, "Empty PATCH request."),
        ("DELETE", "/drives/a", {}, "Empty Delete request."),
        ("GET", "/nothing", None, "Invalid request method and/or path: GET nothing."),
        ("GET", "/vm", None, "Invalid request method and/or path: GET vm."),
        ("PUT", "/nothing/x", {}, "Invalid request method and/or path: PUT nothing."),
        ("PATCH", "/actions", {}, "Invalid request method and/or path: PATCH actions."),
        ("DELETE", "/vm", None, "Invalid request method and/or path: DELETE vm."),
        ("PATCH", "/nothing", None, "Empty PATCH request."),
        ("PATCH", "/mmds", None, "Empty PATCH request."),
        ("PUT", "/vm", {}, "Invalid request method and/or path: PUT vm."),
        ("GET", "/actions", None, "Invalid request method and/or path: GET actions."),
        ("GET", "/hotplug", None, "Invalid request method and/or path: GET hotplug."),
        ("DELETE", "/drives", None, "The ID cannot be empty."),
        ("PATCH", "/network-interfaces", {}, "The ID cannot be empty."),
        ("PUT", "/snapshot", {}, "Missing snapshot operation type."),
        ("PUT", "/mmds/x", {}, "Unrecognized PUT request path `x`."),
        ("PUT", "/drives/é", {}, f"{SERDE}missing field `drive_id` at line 1 column 2."),
        ("PUT", "/snapshot/x", {}, "Invalid request method and/or path: PUT /snapshot/x."),
        ("PUT", "/drives", {}, "The ID cannot be empty."),
        ("PUT", "/drives//a", {}, "The ID cannot be empty."),
        ("PUT", "/network-interfaces/", {}, "The ID cannot be empty."),
        (
            "PUT",
            "/drives/a-b",
            {},
            "API Resource IDs can only contain alphanumeric characters and underscores.",
        ),
        (
            "PUT",
            "/drives/a",
            {"drive_id": "b", "is_root_device": False},
            "The id from the path does not match the id from the body!",
        ),
        (
            "PUT",
            "/network-interfaces/a",
            {"iface_id": "b", "host_dev_name": "t"},
            "The id from the path [a] does not match the id from the body [b]!",
        ),
    ],
)
def test_requests_that_mean_nothing(server, method, path, body, fault):
    assert server.request(method, path, body).fault == fault


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/logger", b"x", "expected value at line 1 column 1"),
        ("/logger", b"{", "EOF while parsing an object at line 1 column 1"),
        ("/logger", b"{} {", "trailing characters at line 1 column 4"),
        ("/logger", b'{"level":"Info",}', "trailing comma at line 1 column 17"),
        ("/logger", b'{"level":"loud"}', "Invalid LevelFilter at line 1 column 16"),
        ("/machine-config", b"{}", "missing field `vcpu_count` at line 1 column 2"),
        (
            "/machine-config",
            b'{"vcpu_count": 1}\n',
            "missing field `mem_size_mib` at line 1 column 17",
        ),
        (
            "/machine-config",
            b'{\n "vcpu_count": "1"}',
            'invalid type: string "1", expected u8 at line 2 column 18',
        ),
        (
            "/machine-config",
            b'{"vcpu_count": 256}',
            "invalid value: integer `256`, expected u8 at line 1 column 18",
        ),
        (
            "/machine-config",
            b'{"vcpu_count": -1}',
            "invalid value: integer `-1`, expected u8 at line 1 column 17",
        ),
        (
            "/machine-config",
            b'{"vcpu_count": 1.0}',
            "invalid type: floating point `1.0`, expected u8 at line 1 column 18",
        ),
        (
            "/machine-config",
            b'{"vcpu_count": -0}',
            "invalid type: floating point `-0.0`, expected u8 at line 1 column 17",
        ),
        ("/machine-config", b'{"vcpu_count": 01}', "invalid number at line 1 column 17"),
        ("/machine-config", b'{"vcpu_count": - 1}', "invalid number at line 1 column 17"),
        ("/machine-config", b'{"vcpu_count": 1.}', "invalid number at line 1 column 18"),
        (
            "/machine-config",
            b'{"vcpu_count": "\\u0000"}',
            'invalid type: string "\\0", expected u8 at line 1 column 23',
        ),
        (
            "/machine-config",
            b'{"vcpu_count": "\\ud800"}',
            "unexpected end of hex escape at line 1 column 23",
        ),
        (
            "/machine-config",
            b'{"vcpu_count": "\xff"}',
            "invalid unicode code point at line 1 column 18",
        ),
        (
            "/machine-config",
            b'{"vcpu_count":1,"mem_size_mib":1,"huge_pages":{"1G":null}}',
            "unknown variant `1G`, expected `None` or `2M` at line 1 column 51",
        ),
        (
            "/machine-config",
            b'{"vcpu_count":1,"mem_size_mib":1,"cpu_template":"T1"}',
            "unknown variant `T1`, expected one of `C3`, `T2`, `T2S`, `None`, `T2CL`, `T2A` at "
            "line 1 column 52",
        ),
        (
            "/machine-config",
            b'{"vcpu_count":1,"mem_size_mib":1,"smt":"x"}',
            'invalid type: string "x", expected a boolean at line 1 column 42',
        ),
        (
            "/machine-config",
            b'{"vcpu_count":1,"mem_size_mib":1,"huge_pages":"1G"}',
            "unknown variant `1G`, expected `None` or `2M` at line 1 column 50",
        ),
        (
            "/boot-source",
            b'{"kernel": "x"}',
            "unknown field `kernel`, expected one of `kernel_image_path`, `initrd_path`, "
            "`boot_args` at line 1 column 9",
        ),
        (
            "/boot-source",
            b'{"boot_args": "a", "boot_args": "b"}',
            "duplicate field `boot_args` at line 1 column 30",
        ),
        (
            "/serial",
            b'{"out": 1}',
            "unknown field `out`, expected `serial_out_path` or `rate_limiter` at line 1 column 6",
        ),
        ("/entropy", b'{"x": 1}', "unknown field `x`, expected `rate_limiter` at line 1 column 4"),
        ("/actions", b'{"action_type": 1}', "expected value at line 1 column 17"),
        (
            "/actions",
            b'{"action_type": "Stop"}',
            "unknown variant `Stop`, expected one of `FlushMetrics`, `InstanceStart`, "
            "`SendCtrlAltDel` at line 1 column 22",
        ),
        (
            "/drives/a",
            b'{"drive_id":"a","is_root_device":true,"io_engine":"Fast"}',
            "unknown variant `Fast`, expected `Async` or `Sync` at line 1 column 56",
        ),
        (
            "/drives/a",
            b'{"drive_id":"a","is_root_device":true,"cache_type":"Fast"}',
            "unknown variant `Fast`, expected `Unsafe` or `Writeback` at line 1 column 57",
        ),
        ("/drives/a", b'{"drive_id":"a"}', "missing field `is_root_device` at line 1 column 16"),
        (
            "/drives/a",
            b'{"drive_id":"a","is_root_device":null}',
            "invalid type: null, expected a boolean at line 1 column 37",
        ),
        (
            "/entropy",
            b'{"rate_limiter":{"bandwidth":{"size":1}}}',
            "missing field `refill_time` at line 1 column 39",
        ),
        (
            "/entropy",
            b'{"rate_limiter":{"bandwidth":{"size":-1,"refill_time":1}}}',
            "invalid value: integer `-1`, expected u64 at line 1 column 39",
        ),
        (
            "/entropy",
            b'{"rate_limiter":{"packets":null}}',
            "unknown field `packets`, expected `bandwidth` or `ops` at line 1 column 26",
        ),
        (
            "/machine-config",
            b'{"vcpu_count": 1e300}',
            "invalid type: floating point `1e+300`, expected u8 at line 1 column 20",
        ),
        (
            "/network-interfaces/a",
            b'{"iface_id":"a","host_dev_name":"t","guest_mac":"x"}',
            "The provided MAC address is invalid. at line 1 column 52",
        ),
    ],
)
def test_bodies_that_say_nothing(server, path, body, text):
    assert server.put(path, body).fault == f"{SERDE}{text}."


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        (
            "/drives/a",
            b'{"drive_id":"a","is_read_only":true}',
            "unknown field `is_read_only`, expected one of `drive_id`, `path_on_host`, "
            "`rate_limiter` at line 1 column 30",
        ),
        ("/drives/a", b'{"path_on_host":"x"}', "missing field `drive_id` at line 1 column 20"),
        (
            "/drives/a",
            b'{"drive_id":1}',
            "invalid type: integer `1`, expected a string at line 1 column 13",
        ),
        (
            "/network-interfaces/a",
            b'{"iface_id":"a","host_dev_name":"t"}',
            "unknown field `host_dev_name`, expected one of `iface_id`, `rx_rate_limiter`, "
            "`tx_rate_limiter` at line 1 column 31",
        ),
        (
            "/machine-config",
            b'{"mem_size_mib":"1"}',
            'invalid type: string "1", expected usize at line 1 column 19',
        ),
        ("/vm", b"{}", "missing field `state` at line 1 column 2"),
    ],
)
def test_patches_that_say_nothing(server, path, body, text):
    assert server.patch(path, body).fault == f"{SERDE}{text}."


@pytest.mark.parametrize(
    ("path", "body", "fault"),
    [
        (
            "/drives/a",
            {"drive_id": "b"},
            "The id from the path does not match the id from the body!",
        ),
        (
            "/network-interfaces/a",
            {"iface_id": "b"},
            "The id from the path [a] does not match the id from the body [b]!",
        ),
    ],
)
def test_patches_of_another(server, path, body, fault):
    assert server.patch(path, body).fault == fault


def test_a_state_is_one_of_two(server):
    fault = server.patch("/vm", b'{"state": "Stopped"}').fault
    text = "unknown variant `Stopped`, expected `Paused` or `Resumed` at line 1 column 19"
    assert fault == f"{SERDE}{text}."


def test_optional_fields_take_null(server, any_kernel):
    body = {"kernel_image_path": str(any_kernel), "initrd_path": None, "boot_args": None}
    server.done("PUT", "/boot-source", body)


def test_some_resources_ignore_what_they_do_not_know(server, tmp_path):
    server.done("PUT", "/metrics", {"metrics_path": str(tmp_path / "m"), "other": [1, {"a": {}}]})
    bucket = {"size": 1, "refill_time": 1, "other": 1}
    server.done("PUT", "/entropy", {"rate_limiter": {"bandwidth": bucket}})
