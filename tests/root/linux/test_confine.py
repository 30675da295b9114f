"""The exec wrapper, looked at from inside and from /proc."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from wrennd.linux import confine
from wrennd.vmm.program import interpreter

UID = 1_879_099_000
BUSYBOX = "/usr/bin/busybox"


def describe(**changes):
    plain = {
        "argv": [BUSYBOX, "true"],
        "env": {"PATH": "/usr/bin"},
        "uid": UID,
        "netns": None,
        "cgroup_procs": None,
        "binds": [[BUSYBOX, BUSYBOX, False], ["/proc", "/proc", False]],
        "dirs": [],
        "links": [["/disk/rootfs.ext4", "/tmp/fc-vm/rootfs.ext4"]],
        "nodes": [["/dev/null", 1, 3]],
        "proc": False,
        "limits": {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 1000},
        "parent": None,
        "hostname": "vmm",
    }
    return plain | changes


def run(*script, **changes):
    description = describe(argv=[BUSYBOX, *script], **changes)
    return subprocess.run(
        [interpreter(), "-I", "-S", confine.__file__, json.dumps(description)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def status_of(text):
    return {k: v.strip() for k, _, v in (line.partition(":") for line in text.splitlines())}


def test_identity_capabilities_and_filter():
    status = status_of(run("cat", "/proc/self/status").stdout)
    assert status["Uid"].split() == [str(UID)] * 4
    assert status["Gid"].split() == [str(UID)] * 4
    assert status["Groups"] == ""
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    ignored = int(status["SigIgn"], 16)
    assert ignored >> 12 & 1 == 0, "SIGPIPE must not be ignored"


def test_the_root_holds_only_what_was_named_and_can_not_be_written():
    listed = run("ls", "-1", "/").stdout.split()
    assert sorted(listed) == ["dev", "proc", "tmp", "usr"]
    assert run("ls", "/usr/bin").stdout.split() == ["busybox"]
    assert run("touch", "/new").returncode != 0
    assert run("readlink", "/tmp/fc-vm/rootfs.ext4").stdout == "/disk/rootfs.ext4\n"


def test_a_bind_is_writable_only_when_it_says_so(tmp_path):
    os.chown(tmp_path, UID, UID)
    binds = describe()["binds"]
    assert run("touch", "/w/x", binds=[*binds, [str(tmp_path), "/w", True]]).returncode == 0
    assert (tmp_path / "x").stat().st_uid == UID
    refused = run("touch", "/w/y", binds=[*binds, [str(tmp_path), "/w", False]])
    assert "Read-only" in refused.stderr
    assert not (tmp_path / "y").exists()


def test_a_source_below_tmp_is_found_though_the_root_is_built_there():
    with tempfile.NamedTemporaryFile(dir="/tmp") as kernel:
        kernel.write(b"k")
        kernel.flush()
        Path(kernel.name).chmod(0o444)
        binds = [*describe()["binds"], [kernel.name, "/boot/vmlinux", False]]
        assert run("cat", "/boot/vmlinux", binds=binds).stdout == "k"


def test_a_proc_of_its_own_shows_its_own_processes_and_nothing_else():
    binds = [[BUSYBOX, BUSYBOX, False]]
    script = "echo /proc/*; cat /proc/$$/status; cat /proc/1/status"
    done = run("sh", "-c", script, binds=binds, proc=True)
    shown, _, status = done.stdout.partition("\n")
    own = status_of(status)["Pid"]
    assert set(shown.split()) == {"/proc/self", "/proc/thread-self", f"/proc/{own}"}
    assert "'/proc/1/status': No such file" in done.stderr
    assert run("touch", "/proc/new", binds=binds, proc=True).returncode != 0


def test_an_empty_network_namespace_and_a_name_of_its_own():
    assert run("hostname").stdout == "vmm\n"
    links = run("ip", "-o", "link").stdout.splitlines()
    assert [line.split(":")[1].strip() for line in links] == ["lo"]


def test_devices_belong_to_the_uid_and_stdin_is_empty():
    assert run("stat", "-c", "%u %a %t,%T", "/dev/null").stdout == f"{UID} 600 1,3\n"
    assert run("cat").stdout == ""


@pytest.mark.parametrize(
    "script",
    [
        ("unshare", "-U", "true"),
        ("mount", "-t", "tmpfs", "none", "/tmp"),
        ("chroot", "/", "true"),
        ("reboot", "-f"),
    ],
    ids=lambda s: s[0],
)
def test_what_no_vmm_needs_is_refused(script):
    done = run(*script)
    assert done.returncode != 0
    assert "not permitted" in done.stderr.lower() or "denied" in done.stderr.lower()


def test_limits_are_set():
    assert "1000" in run("sh", "-c", "ulimit -n").stdout


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"binds": [["/nonexistent/kernel", "/boot/vmlinux", False]]}, "open sources"),
        ({"netns": "/nonexistent/ns"}, "namespaces"),
        ({"cgroup_procs": "/nonexistent/cgroup.procs"}, "join cgroup"),
        ({"parent": 1 << 22}, "parent"),
        ({"binds": []}, "exec"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_step_that_fails_is_named_and_nothing_runs(changes, step):
    done = run("echo", "ran", **changes)
    assert done.returncode == 126
    assert done.stderr.startswith(f"confine: {step}: ")
    assert done.stdout == ""


def test_the_program_dies_with_its_parent():
    """A parent that starts `sleep` confined and is killed: the pipe that only `sleep` still
    holds reports its end."""
    description = describe(argv=[BUSYBOX, "sleep", "1000"])
    code = (
        "import json, os, subprocess, sys\n"
        f"d = json.loads({json.dumps(json.dumps(description))}); d['parent'] = os.getpid()\n"
        f"c = subprocess.Popen([{os.fspath(interpreter())!r}, '-I', '-S', {confine.__file__!r},"
        " json.dumps(d)])\n"
        "while open(f'/proc/{c.pid}/comm').read() != 'busybox\\n': pass\n"
        "print('confined', flush=True); c.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"confined\n"
        parent.kill()
        assert parent.stdout.read() == b"", "the end of the pipe: nobody holds it any more"


def test_the_filter_lets_threads_be_made():
    python = Path(os.path.realpath(sys.executable))
    prefix = Path(os.path.realpath(sys.base_prefix))
    same = ["/usr/lib", "/usr/lib64", str(python), str(prefix / "lib"), "/proc"]
    code = "import threading; t = threading.Thread(target=print, args=('ok',)); t.start(); t.join()"
    description = describe(
        argv=[str(python), "-I", "-S", "-c", code],
        binds=[[path, path, False] for path in same if Path(path).exists()],
        links=[["usr/lib", "/lib"], ["usr/lib64", "/lib64"]],
    )
    done = subprocess.run(
        [interpreter(), "-I", "-S", confine.__file__, json.dumps(description)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("ok\n", "")
