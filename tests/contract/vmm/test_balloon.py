"""The balloon before the start: fields, sizes, and the texts that refuse. Running: test_running."""

import pytest

SERDE = "An error occurred when deserializing the json body of a request: "
BEFORE = "The requested operation is not supported before starting the microVM."
BALLOON = {"amount_mib": 64, "deflate_on_oom": True}
SHOWN = {
    **BALLOON,
    "stats_polling_interval_s": 0,
    "free_page_hinting": False,
    "free_page_reporting": False,
}


def test_none_at_first(server):
    assert server.request("GET", "/balloon").fault == (
        "Balloon config error: No balloon device found."
    )
    assert server.get("/vm/config")["balloon"] is None


def test_a_balloon_as_it_is_shown(server):
    server.done("PUT", "/balloon", BALLOON)
    assert server.get("/balloon") == SHOWN
    assert server.get("/vm/config")["balloon"] == SHOWN
    server.done("PUT", "/balloon", {**BALLOON, "amount_mib": 0, "free_page_reporting": True})
    assert server.get("/balloon") == {**SHOWN, "amount_mib": 0, "free_page_reporting": True}


def test_it_is_no_larger_than_the_memory(server):
    server.done("PUT", "/balloon", {**BALLOON, "amount_mib": 128})
    fault = server.put("/balloon", {**BALLOON, "amount_mib": 129}).fault
    assert fault == "Balloon config error: Amount of pages requested is too large."
    small = "Machine config error: The memory size (MiB) is smaller than the previously set "
    for method, body in (
        ("PUT", {"vcpu_count": 1, "mem_size_mib": 127}),
        ("PATCH", {"mem_size_mib": 127}),
    ):
        fault = server.request(method, "/machine-config", body).fault
        assert fault == f"{small}balloon device target size."
    server.done("PATCH", "/machine-config", {"mem_size_mib": 256})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "missing field `amount_mib` at line 1 column 2"),
        ({"amount_mib": 1}, "missing field `deflate_on_oom` at line 1 column 17"),
        ({"amount_mib": -1}, "invalid value: integer `-1`, expected u32 at line 1 column 17"),
        (
            {"stats_polling_interval_s": 65536},
            "invalid value: integer `65536`, expected u16 at line 1 column 34",
        ),
        (
            {"x": 1},
            "unknown field `x`, expected one of `amount_mib`, `deflate_on_oom`, "
            "`stats_polling_interval_s`, `free_page_hinting`, `free_page_reporting` at line 1 "
            "column 4",
        ),
    ],
)
def test_bodies_that_say_nothing(server, body, text):
    assert server.put("/balloon", body).fault == f"{SERDE}{text}."


@pytest.mark.parametrize(
    ("method", "path", "body", "fault"),
    [
        ("GET", "/balloon/x", None, "Unrecognized GET request path `x`."),
        ("GET", "/balloon/hinting", None, "Unrecognized GET request path `/hinting/`."),
        ("GET", "/balloon/hinting/x", None, "Unrecognized GET request path `/hinting/x`."),
        ("PATCH", "/balloon/hinting", {}, "Unrecognized PATCH request path `/hinting/`."),
        ("PATCH", "/balloon/hinting/x", None, "Unrecognized PATCH request path `/hinting/x`."),
        ("PATCH", "/balloon", None, "Empty PATCH request."),
        ("PATCH", "/balloon/statistics", None, "Empty PATCH request."),
        (
            "PATCH",
            "/balloon/statistics",
            {},
            f"{SERDE}missing field `stats_polling_interval_s` at line 1 column 2.",
        ),
        (
            "PATCH",
            "/balloon",
            {"amount_mib": 1, "x": 1},
            f"{SERDE}unknown field `x`, expected `amount_mib` at line 1 column 21.",
        ),
        (
            "PATCH",
            "/balloon/hinting/start",
            {"acknowledge_on_stop": 1},
            f"{SERDE}invalid type: integer `1`, expected a boolean at line 1 column 25.",
        ),
        ("GET", "/balloon/statistics", None, BEFORE),
        ("GET", "/balloon/hinting/status", None, BEFORE),
        ("PATCH", "/balloon", {"amount_mib": 1}, BEFORE),
        ("PATCH", "/balloon/x", {"amount_mib": 1}, BEFORE),
        ("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 1}, BEFORE),
        ("PATCH", "/balloon/hinting/start", None, BEFORE),
        ("PATCH", "/balloon/hinting/start", {"x": 1}, BEFORE),
        ("PATCH", "/balloon/hinting/stop", None, BEFORE),
    ],
)
def test_calls_that_mean_nothing_yet(server, method, path, body, fault):
    assert server.request(method, path, body).fault == fault
