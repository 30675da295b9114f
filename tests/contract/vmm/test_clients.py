"""Clients that aren't ours: each configures, starts and watches a microVM in its own way."""

import json
import os
from pathlib import Path

import pytest

import own_environment
from vmm_guest import BOOT_S, boot_source
from vmm_server import wait_until
from wrennd.linux import process

FIRECRACKER_PYTHON = "firecracker-python==0.0.5"


def wait_for_userspace(server):
    """The guest's init has printed to the server's standard output, and rebooted."""
    wait_until(lambda: server.process.exit_code is not None, "the end of the VMM", BOOT_S)
    assert server.exit_code() == 0
    assert "READY cpus=1" in server.text()


@pytest.fixture(scope="module")
def their_python(tmp_path_factory):
    return own_environment.make(tmp_path_factory.mktemp("environment"), FIRECRACKER_PYTHON)


@pytest.mark.vm
def test_the_api_class_of_firecracker_python(server, kernel, test_initrd, disk, their_python):
    boot = boot_source(kernel, test_initrd, "none")
    done = process.run(
        [
            their_python,
            Path(__file__).with_name("firecracker_python_client.py"),
            os.fspath(server.socket_path),
            boot["kernel_image_path"],
            boot["initrd_path"],
            boot["boot_args"],
            os.fspath(disk),
        ],
        timeout_s=120,
    )
    told = json.loads(
        done.stdout.splitlines()[-1]
    )  # the package warns that there is no Firecracker
    states = [told[when]["state"] for when in ("before", "paused", "after")]
    assert states == ["Not started", "Paused", "Running"]
    assert told["version"]["firecracker_version"] == told["before"]["vmm_version"]
    assert told["mmds"] == {"greeting": "hello", "name": "vm"}
    assert told["config"]["machine-config"]["mem_size_mib"] == 128
    assert told["config"]["drives"][0]["path_on_host"] == os.fspath(disk)
    assert told["fault"].startswith("API fault: Machine config error: The number of vCPUs")
    wait_for_userspace(server)


class Curl:
    def __init__(self, socket_path):
        self._socket_path = socket_path

    def request(self, method, path, body=None):
        """Status and body of the answer."""
        command = ["curl", "--silent", "--show-error", "--unix-socket", self._socket_path]
        command += ["--request", method, "--write-out", "\n%{http_code}"]
        if body is not None:
            command += ["--data-binary", "@-"]
        done = process.run([*command, f"http://localhost{path}"], stdin=body, timeout_s=30)
        answer, _, status = done.stdout.rpartition("\n")
        return int(status), answer

    def put(self, path, body):
        assert self.request("PUT", path, json.dumps(body)) == (204, "")


@pytest.mark.vm
def test_curl(server, kernel, test_initrd):
    curl = Curl(server.socket_path)
    curl.put("/machine-config", {"vcpu_count": 1, "mem_size_mib": 128})
    curl.put("/boot-source", boot_source(kernel, test_initrd, "none"))
    status, answer = curl.request("PUT", "/actions", '{"action_type": "Stop"}')
    assert (status, "unknown variant `Stop`" in json.loads(answer)["fault_message"]) == (400, True)
    curl.put("/actions", {"action_type": "InstanceStart"})
    status, answer = curl.request("GET", "/")
    assert (status, json.loads(answer)["state"]) == (200, "Running")
    wait_for_userspace(server)


def test_curl_waits_for_leave_before_it_sends_a_large_body(server):
    """From 1 MiB on it says `Expect: 100-continue`; this one is too large."""
    status, answer = Curl(server.socket_path).request("PUT", "/logger", " " * (2 << 20))
    assert status == 400
    assert "larger than the limit of 51200" in answer
