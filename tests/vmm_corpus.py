"""Requests of every kind, as bytes: what fuzzing of the VMM's API begins with.

Nothing here names a file that is written to, and but for `FATAL` nothing ends a server: one that
runs may be sent it.
"""

import json

_BUCKET = {"size": 1000, "one_time_burst": 5, "refill_time": 100}
_LIMITS = {"bandwidth": _BUCKET, "ops": None}
BODIES = (
    ("PUT", "/actions", {"action_type": "FlushMetrics"}),
    ("PUT", "/balloon", {"amount_mib": 1, "deflate_on_oom": True, "free_page_reporting": True}),
    ("PATCH", "/balloon", {"amount_mib": 1}),
    ("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 1}),
    ("PATCH", "/balloon/hinting/start", {"acknowledge_on_stop": False}),
    ("PUT", "/boot-source", {"kernel_image_path": "/dev/null", "boot_args": "é\u2028\x01"}),
    (
        "PUT",
        "/drives/a",
        {
            "drive_id": "a",
            "is_root_device": False,
            "path_on_host": "/dev/null",
            "rate_limiter": _LIMITS,
            "cache_type": {"Writeback": None},
        },
    ),
    ("PATCH", "/drives/a", {"drive_id": "a", "path_on_host": "/dev/null"}),
    ("PUT", "/entropy", {"rate_limiter": _LIMITS}),
    ("PUT", "/machine-config", {"vcpu_count": 2, "mem_size_mib": 256, "huge_pages": "None"}),
    ("PATCH", "/machine-config", {"mem_size_mib": 512, "cpu_template": None}),
    ("PUT", "/mmds", {"a": [1, -1.5e300, "\ud83d\ude00", {"b": None, "c": [[], {}]}], "d": True}),
    ("PATCH", "/mmds", {"a": None, "d": {"e": 1e-7}}),
    ("PUT", "/mmds/config", {"network_interfaces": ["a"], "ipv4_address": "169.254.1.1"}),
    ("PATCH", "/network-interfaces/a", {"iface_id": "a", "rx_rate_limiter": _LIMITS}),
    ("PUT", "/vsock", {"guest_cid": 3}),
    ("PUT", "/snapshot/create", {"snapshot_path": "/dev/null", "mem_file_path": "/dev/null"}),
    ("PATCH", "/vm", {"state": "Paused"}),
)
FATAL = (
    (
        "PUT",
        "/snapshot/load",
        {
            "snapshot_path": "/dev/null",
            "mem_backend": {"backend_path": "/dev/null", "backend_type": "Uffd"},
            "network_overrides": [{"iface_id": "a", "host_dev_name": "t"}],
            "resume_vm": True,
        },
    ),
)
READS = (
    ("GET", "/"),
    ("GET", "/version"),
    ("GET", "/vm/config"),
    ("GET", "http://localhost/machine-config"),
    ("GET", "/balloon"),
    ("GET", "/balloon/statistics"),
    ("GET", "/balloon/hinting/status"),
    ("GET", "/mmds"),
    ("GET", "/hotplug/memory"),
    ("DELETE", "/drives/a"),
    ("PATCH", "/balloon/hinting/stop"),
)
HEADERS = (
    b"",
    b"Host: localhost\r\nAccept: application/json\r\n",
    b"Expect: 100-continue\r\n",
    b"Accept-Encoding: gzip, identity;q=0\r\n",
    b"Transfer-Encoding: chunked\r\n",
)


def request(method: str, path: str, body: bytes = b"", headers: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return f"{method} {path} HTTP/1.1\r\n".encode() + headers + length + b"\r\n" + body


def requests(*, fatal: bool = True) -> list[bytes]:
    found = [request(*words) for words in READS]
    for index, (method, path, body) in enumerate(BODIES + (FATAL if fatal else ())):
        headers = HEADERS[index % len(HEADERS)]
        found.append(request(method, path, json.dumps(body, indent=index % 3).encode(), headers))
    return found
