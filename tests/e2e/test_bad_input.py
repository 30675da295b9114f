"""Bad input gets one sentence and a hint, no traceback, and leaves nothing."""

import json
import subprocess
import sys

import pytest

from wrenn_command import environment, wrenn


def assert_clear(done, code, *words):
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("wrenn: ")
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--template", "nosuch", "--", "true"), 125, ("nosuch", "hint")),
        (("--template", "../etc", "--", "true"), 125, ("not a valid template name",)),
        (("--vcpus", "0", "--", "true"), 125, ("0 vCPUs", "between 1 and 32")),
        (("--vcpus", "33", "--", "true"), 125, ("33 vCPUs",)),
        (("--vcpus", "x", "--", "true"), 2, ("--vcpus", "--help")),
        (("--memory", "0", "--", "true"), 125, ("0 MiB", "at least")),
        (("--memory", "7", "--", "true"), 125, ("7 MiB", "at least")),
        (("--memory", "1000000", "--", "true"), 125, ("does not fit", "available")),
        (("--env", "novalue", "--", "true"), 125, ("K=V",)),
        (("--env-file", "/nonexistent", "--", "true"), 125, ("/nonexistent",)),
        (("--copy", "nocolon", "--", "true"), 125, ("SRC:DST",)),
        (("--copy", "/nonexistent:/x", "--", "true"), 125, ("/nonexistent",)),
        (("--dns", "notanip", "--", "true"), 125, ("notanip",)),
        (("--timeout", "-1", "--", "true"), 2, ("--timeout",)),
        ((), 2, ("CMD",)),
        (("--", ""), 125, ("no command",)),
    ],
)
def test_refused_before_anything_is_made(data_dir, args, code, words):
    assert_clear(wrenn(data_dir, "run", *args), code, *words)


def test_a_command_that_does_not_exist_is_127(run):
    assert_clear(run("--", "nosuchprogram"), 127, "nosuchprogram")


def test_a_command_that_is_not_executable_is_126(run):
    assert_clear(run("--", "/etc/passwd"), 126, "/etc/passwd")


def test_a_missing_directory(run):
    assert_clear(run("--cwd", "/no/such/dir", "--", "true"), 125, "/no/such/dir")


def test_a_missing_user(run):
    assert_clear(run("--user", "nobodyhere", "--", "true"), 125, "nobodyhere")


def test_copying_to_where_the_user_may_not_write(run, tmp_path):
    (tmp_path / "f").write_text("x")
    assert_clear(
        run("--copy", f"{tmp_path}/f:/root/f", "--", "true"), 125, "'/root'", "as the user user"
    )


def test_not_root(data_dir):
    """Imports first: the interpreter may lie where only root can read."""
    code = (
        "import os, sys, wrennd.host.local, wrennd.cli.main as m\n"
        "try: m.app(['run', '--nope'], standalone_mode=False)\n"
        "except Exception: pass\n"
        "os.setuid(65534); sys.argv[1:] = ['run', '--', 'true']; m.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(data_dir),
        timeout=60,
        check=False,
    )
    assert_clear(done, 125, "only be made by root", "sudo")


def test_nonsense_in_the_environment(data_dir):
    done = wrenn(data_dir, "run", "--", "true", env={"WRENN_VMM": "xen"})
    assert_clear(done, 125, "WRENN_VMM", "qemu-emulated")


def test_a_vmm_that_can_not_be_used_here_says_why(data_dir):
    done = wrenn(data_dir, "run", "--", "true", env={"WRENN_VMM": "firecracker"})
    assert_clear(done, 125, "no Firecracker was set up", "wrenn doctor")


def test_doctor_says_what_is_used_and_why(data_dir):
    done = wrenn(data_dir, "doctor", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"]) == (0, True), done.stdout
    vmm = next(check for check in told["checks"] if check["name"] == "vmm")
    assert "is used, tier" in vmm["found"]
    assert all(check["advice"] for check in told["checks"] if check["status"] == "missing")
    text = wrenn(data_dir, "doctor").stdout
    assert all(check["name"] in text for check in told["checks"])


def test_doctor_exits_with_1_when_something_is_missing(data_dir):
    done = wrenn(data_dir, "doctor", "--json", env={"PATH": "/nonexistent"})
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"]) == (1, False)
    missing = {check["name"]: check for check in told["checks"] if check["status"] == "missing"}
    assert "apt-get install nftables" in missing["program nft"]["advice"]


def test_image_ls_and_version(data_dir):
    names = {
        i["name"] for i in json.loads(wrenn(data_dir, "image", "ls", "--json").stdout)["images"]
    }
    assert {"base", "busybox"} <= names
    assert "busybox" in wrenn(data_dir, "image", "ls").stdout
    assert wrenn(data_dir, "version").stdout.startswith("wrenn ")
