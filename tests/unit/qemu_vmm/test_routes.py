import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.qemu_vmm import routes
from wrennd.qemu_vmm.balloon import BalloonUpdate
from wrennd.qemu_vmm.faults import Fault
from wrennd.qemu_vmm.phases import TABLE, Call
from wrennd.qemu_vmm.resources import BootSource, Drive, MachineUpdate
from wrennd.qemu_vmm.routes import Unsupported
from wrennd.qemu_vmm.wire import Method, Request


def parse(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    return routes.parse(Request(method=method, path=path, body=data))


def test_calls():
    assert parse(Method.GET, "/") is Call.INSTANCE_INFO
    assert parse(Method.GET, "") is Call.INSTANCE_INFO
    assert parse(Method.GET, "//vm/config/") is Call.FULL_CONFIG
    assert parse(Method.PUT, "/actions", {"action_type": "InstanceStart"}) is Call.START
    assert parse(Method.PATCH, "/vm", {"state": "Resumed"}) is Call.RESUME


def test_resources():
    boot = parse(Method.PUT, "/boot-source", {"kernel_image_path": "/k"})
    assert boot == BootSource(kernel_image_path="/k")
    drive = parse(Method.PUT, "/drives/a_1", {"drive_id": "a_1", "is_root_device": True})
    assert isinstance(drive, Drive)
    assert drive.io_engine is None


def test_what_is_deprecated():
    body = {"vcpu_count": 1, "mem_size_mib": 1}
    assert not routes.deprecation(parse(Method.PUT, "/machine-config", body))
    old = parse(Method.PATCH, "/machine-config", {"cpu_template": "T2"})
    assert isinstance(old, MachineUpdate)
    assert "cpu_template" in routes.deprecation(old)
    config = {"network_interfaces": []}
    assert "V1" in routes.deprecation(parse(Method.PUT, "/mmds/config", config))
    config["version"] = "V2"
    assert not routes.deprecation(parse(Method.PUT, "/mmds/config", config))


def test_the_balloon_has_calls_without_a_body():
    assert parse(Method.GET, "/balloon/statistics") is Call.BALLOON_STATISTICS
    assert parse(Method.PATCH, "/balloon/hinting/start") is Call.BALLOON_HINTING
    assert parse(Method.PATCH, "/balloon/hinting/stop/x", {"any": 1}) is Call.BALLOON_HINTING
    assert parse(Method.PATCH, "/balloon/x", {"amount_mib": 7}) == BalloonUpdate(amount_mib=7)
    with pytest.raises(Fault, match="Empty PATCH request"):
        parse(Method.PATCH, "/balloon")


@given(
    st.sampled_from(list(Method)),
    st.sampled_from(sorted({route.token for route in routes.ROUTES})) | st.text(max_size=8),
    st.lists(
        st.sampled_from(
            ("", "a", "memory", "config", "create", "hinting", "start", "statistics", "é")
        ),
        max_size=3,
    ),
    st.none() | st.binary(min_size=1, max_size=30) | st.just(b"{}"),
)
def test_every_request_is_understood_or_refused(method, token, more, body):
    path = "/".join(["", token, *more])
    try:
        action = routes.parse(Request(method=method, path=path, body=body))
    except Fault:
        return
    key = action if isinstance(action, Call) else type(action)
    assert key in TABLE or isinstance(action, Unsupported)


@pytest.mark.parametrize("path", ["/drives/a-b", "/drives/a.b", "/drives/a b"])
def test_ids_are_plain(path):
    with pytest.raises(Fault, match="alphanumeric characters and underscores"):
        parse(Method.PUT, path, {})
