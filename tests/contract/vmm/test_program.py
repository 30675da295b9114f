"""The program around the API: command line, exit codes, socket, log, configuration file."""

import json
import os
import signal

import pytest

from vmm_server import Server, program, wait_until
from wrennd.linux import process


def run(*arguments):
    return process.run([*program(), *arguments], timeout_s=30, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nonsense"], "Found argument 'nonsense' which wasn't expected"),
        (["id"], "Found argument 'id' which wasn't expected"),
        (["--id"], "The argument 'id' requires a value"),
        (["--id", "--no-api"], "The argument 'id' requires a value"),
        (["--id", "a", "--id", "b"], "The argument 'id' was provided more than once."),
        (["--no-api"], "Argument 'config-file' required, but not found."),
        (["--no-seccomp", "--seccomp-filter", "x"], "cannot be used together"),
    ],
)
def test_wrong_arguments(arguments, words):
    done = run(*arguments)
    assert done.returncode == 153
    assert words in done.stderr + done.stdout


@pytest.mark.parametrize("wrong", ["", "a" * 65, "under_score", "slash/"])
def test_ids_that_can_not_be(ours, wrong):
    done = run("--id", wrong)
    assert done.returncode == 153
    assert "Invalid instance ID" in done.stderr


def test_a_log_level_that_does_not_exist():
    assert run("--level", "loud").returncode == 152


def test_version():
    done = run("--version")
    assert (done.returncode, done.stdout.startswith("Firecracker v")) == (0, True)


def test_the_version_is_the_apis(server):
    (first, *_) = run("--version").stdout.splitlines()
    assert first == f"Firecracker v{server.get('/version')['firecracker_version']}"


def test_help_names_the_options():
    done = run("--help")
    assert done.returncode == 0
    assert "--api-sock" in done.stdout


def test_a_socket_that_is_taken(server):
    done = run("--api-sock", os.fspath(server.socket_path))
    assert done.returncode == 1
    assert (
        f"Failed to open the API socket at: {server.socket_path}. Check that it is not already "
        "used."
    ) in done.stderr + done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_the_socket(server, number):
    server.process.signal(number)
    assert server.exit_code() == -number
    assert server.socket_path.exists()


def test_options_of_the_jailer_are_taken(leak_check, tmp_path):
    extra = ("--start-time-us", "1", "--start-time-cpu-us", "1", "--no-seccomp", "--boot-timer")
    with Server(tmp_path, *extra) as server:
        assert server.wait_for_api().get("/")["state"] == "Not started"


def test_a_larger_body_by_option(leak_check, tmp_path):
    with Server(tmp_path, "--http-api-max-payload-size", str(3 << 20)) as server:
        server.wait_for_api()
        assert "EOF while parsing" in server.put("/logger", b" " * (2 << 20)).fault


def test_requests_are_logged(leak_check, tmp_path):
    log = tmp_path / "log"
    with Server(tmp_path, "--log-path", os.fspath(log), "--level", "debug") as server:
        server.wait_for_api()
        server.put("/machine-config", {"vcpu_count": 0, "mem_size_mib": 1})
        server.request("GET", "/version")
        text = log.read_text()
    assert (
        'The API server received a Put request on "/machine-config" with body '
        '"{\\"vcpu_count\\": 0, \\"mem_size_mib\\": 1}".'
    ) in text
    assert "Received Error. Status code: 400 Bad Request. Message: Machine config error: " in text
    assert 'The API server received a Get request on "/version".' in text
    assert "The request was executed successfully. Status code: 200 OK." in text
    assert "Total previous API call duration: " in text
    assert "[test-vm:fc_api] " in text


def test_the_log_by_the_api(server, tmp_path):
    log = tmp_path / "log"
    body = {"log_path": str(log), "level": "Warning", "show_level": True, "show_log_origin": True}
    server.done("PUT", "/logger", body)
    server.request("GET", "/")
    server.request("GET", "/nothing")
    lines = log.read_text().splitlines()
    assert len(lines) == 1
    assert "[test-vm:fc_api:ERROR:" in lines[0]


def test_contents_for_the_guest_are_not_logged(server, tmp_path):
    log = tmp_path / "log"
    server.done("PUT", "/logger", {"log_path": str(log), "level": "Debug"})
    server.put("/mmds", {"password": "secret"})
    assert "/mmds" in log.read_text()
    assert "secret" not in log.read_text()


def test_without_an_api_a_configuration_is_all(tmp_path):
    config = tmp_path / "config.json"
    config.write_text("{}")
    done = run("--no-api", "--config-file", os.fspath(config))
    assert done.returncode != 0
    assert "missing field `drives`" in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"drives": [], "boot-source": {"kernel_image_path": "/nothing"}}, "cannot be opened"),
        (
            {"drives": [], "boot-source": {"kernel_image_path": "/x"}, "vsock": {"guest_cid": 3}},
            "vsock is not supported by the QEMU-based VMM",
        ),
    ],
)
def test_a_configuration_that_ours_can_not_start(ours, tmp_path, config, words):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    done = run("--no-api", "--config-file", os.fspath(path))
    assert done.returncode == 152
    assert words in done.stderr


def test_a_kernel_that_is_none(server, ours, any_kernel):
    """QEMU ends at once; its words are in the answer, and the API goes on."""
    server.done("PUT", "/boot-source", {"kernel_image_path": str(any_kernel)})
    for _ in range(2):
        fault = server.put("/actions", {"action_type": "InstanceStart"}).fault
        assert fault.startswith("Start microvm error: QEMU exited with code 1: ")
    assert server.get("/")["state"] == "Not started"


def test_a_kernel_that_was_replaced_is_the_one_that_was_opened(server, ours, any_kernel):
    server.done("PUT", "/boot-source", {"kernel_image_path": str(any_kernel)})
    any_kernel.unlink()
    fault = server.put("/actions", {"action_type": "InstanceStart"}).fault
    assert "No such file" not in fault
    assert "QEMU exited with code 1: " in fault


def test_qemu_is_missing(leak_check, ours, tmp_path, any_kernel):
    with Server(tmp_path, "--qemu", os.fspath(tmp_path / "no-qemu")) as server:
        server.wait_for_api()
        server.done("PUT", "/boot-source", {"kernel_image_path": str(any_kernel)})
        fault = server.put("/actions", {"action_type": "InstanceStart"}).fault
        assert fault.startswith("Start microvm error: ")
        assert "no-qemu" in fault


def test_nothing_listens_to_its_output(leak_check, ours, tmp_path):
    """Firecracker 1.16.1 hangs: its handler of SIGPIPE logs while the log is locked."""
    reader, writer = os.pipe()
    try:
        with Server(tmp_path, "--level", "Debug", stdout=writer) as server:
            os.close(reader)
            reader = -1
            server.wait_for_api()
            assert server.get("/")["state"] == "Not started"
    finally:
        os.close(writer)
        if reader >= 0:
            os.close(reader)


def test_metrics_by_option_are_a_line_of_json(leak_check, tmp_path):
    path = tmp_path / "metrics"
    with Server(tmp_path, "--metrics-path", os.fspath(path)) as server:
        fault = server.wait_for_api().put("/metrics", {"metrics_path": str(path)}).fault
        assert fault.endswith("Reinitialization of metrics not allowed.")
        wait_until(path.exists, "the metrics file")
