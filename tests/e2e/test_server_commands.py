"""The commands where a server runs, its proxy, and its page: all of it real."""

import contextlib
import http.client
import json
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from leaks import LeakCheck
from real_server import serving
from screen import Screen
from wrenn_command import WRENN, environment, wrenn

pytestmark = pytest.mark.long
SMALL = ("--template", "busybox", "--memory", "128")
TIMEOUT_S = 90
PORT = 8080
NAME = "commands-test"
MIB = 1 << 20


@pytest.fixture(scope="module")
def shared_world(layout, tmp_path_factory):
    check = LeakCheck()
    check.watch(layout.installation, layout.sandboxes)
    with serving(layout, tmp_path_factory.mktemp("server") / "log") as server:
        yield server
    check.finish()


@pytest.fixture
def command(shared_world):
    """Run one to its end; it must succeed, unless `code` says otherwise."""

    def call(*args, code=0, **kwargs):
        done = wrenn(shared_world.layout.data_dir, *args, **kwargs)
        assert done.returncode == code, (args, done.stdout, done.stderr)
        return done

    return call


@pytest.fixture(scope="module")
def box(shared_world):
    """One for all tests, which leave it running."""
    done = wrenn(shared_world.layout.data_dir, "create", *SMALL)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_data_directory_has_one_server(command, shared_world):
    said = command("up", code=125).stderr
    assert f"runs already at {shared_world.url}" in said
    assert "wrenn down ends it" in said


def test_commands_use_the_server(command, box, shared_world):
    with contextlib.closing(shared_world.client()) as client:
        assert [each.id for each in client.list()] == [box]
    assert [row["id"] for row in json.loads(command("ls", "--json").stdout)["sandboxes"]] == [box]
    said = command("exec", box[:6], "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert (said.stdout, said.stderr) == ("out\n", "err\n")
    assert "was not found" in command("exec", box, "--", "no-such", code=127).stderr
    assert command("logs", box[:6]).stdout.strip()
    assert "no sandbox" in command("exec", "zzzzz", "--", "true", code=125).stderr


def test_children_go_on_where_their_source_is(command, box):
    command("exec", box, "--", "sh", "-c", "echo here > /dev/shm/mark")
    made = command("fork", box[:6], "--count", "2").stdout.split()
    assert len(made) == 2
    for each in made:
        said = command("exec", each, "--", "sh", "-c", "hostname; cat /dev/shm/mark").stdout
        assert said == f"{each}\nhere\n"
    told = json.loads(command("fork", made[0], "--json").stdout)
    (child,) = told["children"]
    assert "access token" in child["unique"]
    assert child["shared"]
    assert told["timings_ms"]["write"] > 0
    said = command("exec", box, "--", "cat", "/dev/shm/mark").stdout
    assert said == "here\n"
    command("kill", *made, child["sandbox_id"])
    assert "it is 20 at most" in command("fork", box, "--count", "21", code=2).stderr
    assert "is stopped" in command("fork", made[0], code=125).stderr


def test_a_command_ends_with_the_one_that_started_it(command, box, shared_world):
    command("exec", "--timeout", "2", box, "--", "sleep", "1111", code=124)
    with subprocess.Popen(
        [WRENN, "exec", box, "--", "sh", "-c", "echo begun; exec sleep 1111"],
        stdout=subprocess.PIPE,
        env=environment(shared_world.layout.data_dir),
    ) as child:
        assert child.stdout.readline() == b"begun\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(TIMEOUT_S) == 128 + signal.SIGINT
    left = "ps -o args | grep '[s]leep 1111'"
    ended = f"for i in $(seq 300); do {left} || exit 0; sleep 0.1; done; exit 1"
    command("exec", box, "--", "sh", "-c", ended)


def test_bytes_and_trees_pass_unchanged(shared_world, box, command, tmp_path):
    data = bytes(range(256)) * 2000
    done = subprocess.run(
        [WRENN, "exec", "-i", box, "--", "cat"],
        input=data,
        capture_output=True,
        env=environment(shared_world.layout.data_dir),
        timeout=TIMEOUT_S,
        check=True,
    )
    assert done.stdout == data
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/file").write_bytes(data)
    (tmp_path / "in/run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "in/run").chmod(0o755)
    command("cp", f"{tmp_path}/in", f"{box}:/home/user/")
    assert command("exec", box, "--", "./in/run").stdout == "ran\n"
    command("cp", f"{box}:/home/user/in", f"{tmp_path}/out")
    assert (tmp_path / "out/deep/file").read_bytes() == data
    assert (tmp_path / "out/run").stat().st_mode & 0o777 == 0o755


def test_a_pause_a_snapshot_and_what_is_told_of_them(command, box):
    phases = json.loads(command("pause", "--json", box).stdout)["timings_ms"]
    assert phases["freeze"] > 0
    assert "is paused" in command("exec", box, "--", "true", code=125).stderr
    command("resume", box)
    command("snapshot", "create", box, NAME)
    for listing, key in ((("snapshot", "ls"), "snapshots"), (("template", "ls"), "templates")):
        rows = json.loads(command(*listing, "--json").stdout)[key]
        assert NAME in [row["name"] for row in rows]
    command("template", "rm", NAME)
    kinds = [row["kind"] for row in json.loads(command("events", "--json", box).stdout)["events"]]
    assert kinds[0] == "create"
    assert {"pause", "resume", "snapshot"} <= set(kinds)
    for words in (("events", box), ("df",), ("top", "--once"), ("template", "ls"), ("ls",)):
        assert command(*words).stdout
    space = json.loads(command("df", "--json").stdout)
    assert ("sandbox", box) in {(each["kind"], each["name"]) for each in space["holdings"]}
    told = json.loads(command("prune", "--dry-run", "--json").stdout)
    assert told["freed_bytes"] >= 0
    assert "--yes" in command("prune", code=125).stderr


def test_keys(command, shared_world):
    key = command("key", "create", "for a test", "--project", "other").stdout.strip()
    theirs = {"WRENN_API_KEY": key}
    assert json.loads(command("ls", "--json", env=theirs).stdout)["sandboxes"] == []
    assert "forbidden" not in command("df", env=theirs).stdout
    assert "key" in command("ls", env={"WRENN_API_KEY": "e2b_" + "0" * 40}, code=125).stderr


def test_a_shell(shared_world, box):
    screen = Screen(shared_world.layout.data_dir, "shell", box)
    try:
        screen.wait_for(r"\$ ")
        screen.type("echo sum-$((40+2)); exit 5\n")
        screen.wait_for("sum-42")
        assert screen.child.wait(TIMEOUT_S) == 5
    finally:
        screen.close()


@pytest.fixture(scope="module")
def served(shared_world, box):
    """A web server in it, with a file of 8 MiB."""
    make = f"head -c {8 * MIB} /dev/zero > /tmp/big; echo from-inside > /tmp/index.html"
    serve = "exec /usr/lib/wrenn/busybox httpd -f -p 8080 -h /tmp"
    with contextlib.closing(shared_world.client()) as client:
        assert client.exec(box, "sh", ["-c", make]).exit_code == 0
        client.start(box, "sh", ["-c", serve], tag="web")
        yield box
        client.kill_process(box, "web")


@contextlib.contextmanager
def asked(shared_world, path, **headers):
    host, port = shared_world.listen.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers=headers)
        yield connection.getresponse()
    finally:
        connection.close()


def by_name(box):
    return {"Host": f"{PORT}-{box}.sandbox.localhost"}


def by_headers(box):
    return {"E2b-Sandbox-Id": box, "E2b-Sandbox-Port": str(PORT)}


@pytest.mark.parametrize("how", [by_name, by_headers])
def test_a_port_is_reached_through_the_server(shared_world, served, how):
    with asked(shared_world, "/", **how(served)) as answer:
        assert (answer.status, answer.read()) == (200, b"from-inside\n")
    with asked(shared_world, "/big", **how(served)) as answer:
        assert len(answer.read()) == 8 * MIB


def test_a_port_is_forwarded_to_this_machine(shared_world, served):
    with subprocess.Popen(
        [WRENN, "forward", served, str(PORT), "0"],
        stdout=subprocess.PIPE,
        env=environment(shared_world.layout.data_dir),
        text=True,
    ) as child:
        try:
            line = child.stdout.readline()
            port = int(re.search(r"http://127\.0\.0\.1:(\d+) ", line)[1])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"from-inside\n"
            connection.close()
        finally:
            child.terminate()
            try:
                code = child.wait(TIMEOUT_S)
            finally:
                child.kill()
        assert code == 128 + 15


def test_a_sandbox_that_ends_takes_what_passes_to_it_along(shared_world, command):
    made = command("create", *SMALL).stdout.strip()
    with contextlib.closing(shared_world.client()) as client:
        # Says something every now and then, for ever.
        talk = "while echo -e 'HTTP/1.1 200 OK\\r\\n\\r\\n'; do sleep 0.2; done"
        serve = f"({talk}) | /usr/lib/wrenn/busybox nc -l -p {PORT}"
        client.start(made, "sh", ["-c", serve])
        with asked(shared_world, "/", **by_name(made)) as answer:
            assert answer.status == 200
            assert answer.read(1)
            kill = threading.Thread(target=client.destroy, args=(made,))
            kill.start()
            with pytest.raises((ConnectionError, http.client.IncompleteRead)):
                answer.read()
            kill.join()
        with asked(shared_world, "/", **by_name(made)) as answer:
            assert answer.status == 502
            assert json.loads(answer.read())["message"] == "The sandbox was not found"


def test_the_guest_agent_s_control_routes_are_not_reached(shared_world, box):
    with asked(shared_world, "/init", Host=f"49983-{box}.sandbox.localhost") as answer:
        assert answer.status == 404
    with asked(shared_world, "/health", Host=f"49983-{box}.sandbox.localhost") as answer:
        assert answer.status == 204
    with asked(shared_world, "/envs", Host=f"49983-{box}.sandbox.localhost") as answer:
        assert answer.status == 401


def test_the_control_plane_has_no_rights_and_is_started_again(shared_world, box, command):
    (pid,) = shared_world.pids("wrennd.control")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert "0" not in status["Uid"].split()
    assert status["Groups"].strip() == ""
    assert status["NoNewPrivs"] == "1"
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")} == {0}
    shared_world.kill("wrennd.control")
    shared_world.wait_ready()
    assert command("exec", box, "--", "echo", "still there").stdout == "still there\n"


def test_a_whole_life_by_the_page(shared_world):
    import browser_page

    key = (shared_world.state_dir / "admin.key").read_text().strip()
    with (
        browser_page.browser() as browser,
        browser_page.opened(browser, shared_world.url) as page,
    ):
        page.log_in(key)
        page.see("#app").to_be_visible()
        page.page.select_option("#template", "busybox")
        page.page.fill("#memory", "128")
        seen = [step for step in page.whole_life(leaves=1)]
        assert seen[-1] == "destroyed"
