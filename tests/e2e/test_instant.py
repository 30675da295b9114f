"""Instant start as its users see it: restored unless something differs, and nobody's but one's own.

docs/instant.md. The tests' images have warm images (tests/built_images.py); what is damaged here
is a copy.
"""

import json
import subprocess
import time

import pytest

from snapshot_samples import overwrite
from wrenn_command import wrenn
from wrennd.storage.layout import Layout

SCRIPT = (
    "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id /run/wrenn/sandbox-id; "
    "od -An -N16 -tx1 /dev/urandom | tr -d ' '; date +%s; env | grep -c ^SECRET; "
    "grep -c 127.0.1.1 /etc/hosts"
)


def told(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_sandbox_is_restored_and_boots_when_that_is_asked_for(run):
    warm = told(run("--json", "--", "echo", "hello"))
    assert (warm["stdout"], warm["start"]) == ("hello\n", "warm")
    assert list(warm["timings_ms"]) == [
        *("prepare", "share", "network", "disk", "pager", "vmm_start", "vmm_load"),
        *("guest", "thaw", "copy", "command"),
    ]
    cold = told(run("--json", "--cold", "--", "echo", "hello"))
    assert (cold["stdout"], cold["start"]) == ("hello\n", "cold: asked for")
    assert "vmm_boot" in cold["timings_ms"]


def test_the_default_image_is_restored_too(data_dir):
    assert told(wrenn(data_dir, "run", "--json", "--", "python3", "-c", "0"))["start"] == "warm"


def test_each_is_itself(run):
    first, second = (told(run("--json", "--", "sh", "-c", SCRIPT)) for _ in range(2))
    for one in (first, second):
        host, _, _, own_id, _, now, secrets, own_addresses = one["stdout"].split()
        assert one["start"] == "warm"
        assert host == own_id == one["sandbox_id"]
        assert abs(int(now) - time.time()) < 60
        assert (secrets, own_addresses) == ("0", "1")
    # host name, machine-id, boot_id, id, and what its generator gives
    for one, other in zip(first["stdout"].split()[:5], second["stdout"].split()[:5], strict=True):
        assert one != other


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        pytest.param(
            ("--memory", "128"),
            "no warm image of busybox with 1 vCPUs and 128 MiB",
            marks=pytest.mark.long,
        ),
        pytest.param(
            ("--vcpus", "2"),
            "no warm image of busybox with 2 vCPUs and 512 MiB",
            marks=pytest.mark.long,
        ),
        (("--dns", "9.9.9.9"), "not 9.9.9.9"),
    ],
    ids=lambda value: str(value[0]),
)
def test_what_differs_boots_and_says_why(run, asked, reason):
    done = run("--timings", *asked, "--", "echo", "hello")
    assert done.stdout == "hello\n"
    (line,) = (line for line in done.stderr.splitlines() if line.split()[0] == "start")
    assert "cold: " in line
    assert reason in line


def test_a_longer_disk_is_grown(run):
    script = "cat /sys/class/block/vda/size; df -m / | awk 'END {print $2}'"
    one = told(run("--json", "--disk", "6000", "--", "sh", "-c", script))
    sectors, mib = map(int, one["stdout"].split())
    assert (one["start"], sectors * 512 >> 20) == ("warm", 6000)
    assert mib > 5000


def test_one_that_stays_pauses_and_goes_on(data_dir):
    made = told(wrenn(data_dir, "create", "--template", "busybox", "--env", "A=b", "--json"))
    box = made["sandbox_id"]
    try:
        assert made["start"] == "warm"
        done = wrenn(data_dir, "exec", box, "--", "sh", "-c", "echo $A | tee /home/user/kept")
        assert done.stdout == "b\n"
        assert wrenn(data_dir, "pause", box).returncode == 0
        assert wrenn(data_dir, "resume", box).returncode == 0
        done = wrenn(data_dir, "exec", box, "--", "sh", "-c", "cat /home/user/kept; echo $A")
        assert done.stdout == "b\nb\n"
    finally:
        assert wrenn(data_dir, "kill", box).returncode == 0


@pytest.fixture
def own(layout, tmp_path, leak_check):
    """A data directory of the test's own with the small image, its warm one and the kernel."""
    made = Layout.prepare(tmp_path / "data")
    leak_check.watch(made.installation, made.sandboxes)
    busybox = layout.image_name("busybox").resolve()
    (warm,) = layout.warm.glob(f"{busybox.name}-1-512")
    for source, parent in ((busybox, made.images), (warm, made.warm)):
        subprocess.run(["cp", "-a", "--sparse=always", source, parent], check=True)
    kernel = layout.current_kernel.resolve()
    subprocess.run(["cp", "-a", kernel, made.kernels], check=True)
    made.current_kernel.symlink_to(kernel.name)
    made.image_name("busybox").symlink_to(f"../images/{busybox.name}")
    return made


def started(own):
    one = told(wrenn(own.data_dir, "run", "--template", "busybox", "--json", "--", "echo", "hi"))
    assert one["stdout"] == "hi\n"
    return one["start"]


def damage(directory, how):
    (memory,) = directory.glob("memfile*")
    state = directory / "state"
    if how == "short memory":
        memory.chmod(0o600)
        with memory.open("r+b") as file:
            file.truncate(memory.stat().st_size // 2)
    elif how == "no disk":
        (directory / "rootfs.ext4").unlink()
    elif how == "newer format":
        manifest = directory / "manifest.json"
        overwrite(manifest, manifest.read_bytes().replace(b'"format": 1', b'"format": 9'), at=0)
    elif how == "wrong state":
        overwrite(state, b"\xff" * min(4096, state.stat().st_size), at=0)
    else:
        # The first MiB are the firmware's and the kernel's lowest, the rest what it lives in.
        overwrite(memory, b"\xff" * (64 << 20), at=16 << 20)


@pytest.mark.parametrize(
    "how",
    [
        "short memory",
        pytest.param("no disk", marks=pytest.mark.long),
        pytest.param("newer format", marks=pytest.mark.long),
        pytest.param("wrong state", marks=pytest.mark.long),
        "wrong memory",
    ],
)
def test_a_damaged_one_is_removed_and_the_start_is_cold(own, how):
    (directory,) = own.warm.glob("*-512")
    damage(directory, how)
    done = wrenn(own.data_dir, "run", "--template", "busybox", "--json", "--", "echo", "hi")
    assert told(done)["start"].startswith("cold: ")
    (line,) = done.stderr.splitlines()
    assert "a warm image is removed; wrenn setup makes it again" in line
    assert not directory.exists()
    assert started(own).startswith("cold: there is no warm image")


def test_it_goes_with_its_image_and_what_was_made_of_it_needs_neither(own):
    """Fork, pause, template: each rests on links of its own, not on what prunes remove."""

    def done(*words):
        made = wrenn(own.data_dir, *words)
        assert made.returncode == 0, made.stderr
        return made.stdout

    made = json.loads(done("create", "--template", "busybox", "--json"))
    assert made["start"] == "warm"
    box = made["sandbox_id"]
    done("image", "rm", "busybox")
    assert [found for found in own.warm.iterdir() if found.is_dir()] == []
    done("prune", "--yes")
    done("exec", box, "--", "sh", "-c", "echo kept > /home/user/kept; echo too > /dev/shm/too")
    child = done("fork", box).strip()
    done("pause", box)
    done("snapshot", "create", box, "frozen")
    done("kill", box)
    third = done("create", "--template", "frozen").strip()
    for one in (child, third):
        read = done("exec", one, "--", "sh", "-c", "cat /home/user/kept /dev/shm/too; hostname")
        assert read == f"kept\ntoo\n{one}\n"
    done("pause", child)
    for what in (child, "frozen"):
        assert json.loads(done("snapshot", "verify", "--json", what))["ok"]
    done("kill", child, third)
    done("snapshot", "rm", "frozen")
