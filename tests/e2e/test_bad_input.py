"""Bad input gets one sentence and a hint, no traceback, and leaves nothing."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from wrenn_command import WRENN, environment, wrenn
from wrennd.storage.layout import Layout


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
        (("--timeout", "inf", "--", "true"), 2, ("--timeout",)),
        (("--timeout", "nan", "--", "true"), 2, ("--timeout",)),
        (("--", "echo", b"a\xffb"), 125, ("not UTF-8", "--copy")),
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
        "import os, sys, wrennd.host.local, wrennd.cli.main as m, wrennd.cli.commands as c\n"
        "try: c.app_for(['run'])(['run', '--nope'], standalone_mode=False)\n"
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


def hiding(data_dir, path, *command):
    """Run `wrenn` where `path` is no program: /dev/null lies over it in a namespace of its own."""
    script = 'mount --bind /dev/null "$1" && shift && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", path, WRENN, *command],
        capture_output=True,
        text=True,
        env=environment(data_dir),
        timeout=60,
        check=False,
    )


def test_doctor_exits_with_1_when_something_is_missing(data_dir):
    done = hiding(data_dir, "/usr/sbin/nft", "doctor", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"]) == (1, False)
    missing = {check["name"]: check for check in told["checks"] if check["status"] == "missing"}
    assert "apt-get install nftables" in missing["program nft"]["advice"]


def test_doctor_does_not_care_for_the_callers_path(data_dir):
    done = wrenn(data_dir, "doctor", "--json", env={"PATH": "/nonexistent"})
    assert json.loads(done.stdout)["ok"] is True


def test_without_qemu_the_package_is_named(data_dir):
    done = hiding(data_dir, "/usr/bin/qemu-system-x86_64", "run", "--", "true")
    assert_clear(done, 125, "apt-get install qemu-system-x86", "wrenn doctor")


@pytest.fixture
def own_images(layout, tmp_path, leak_check):
    """A data directory of the test's own with the small image and the kernel, to be broken."""
    own = Layout.prepare(tmp_path / "data")
    leak_check.watch(own.installation, own.sandboxes)
    for kept, link in ((layout.kernels, "current"), (layout.images, None)):
        target = own.data_dir / kept.name
        shutil.rmtree(target)
        if link:
            shutil.copytree(kept, target, symlinks=True)
    busybox = layout.image_name("busybox").resolve()
    command = ["cp", "-a", "--sparse=always", busybox, own.images / busybox.name]
    own.images.mkdir()
    subprocess.run(command, check=True)
    own.image_name("busybox").symlink_to(f"../images/{busybox.name}")
    return own


def test_the_copied_images_work_until_they_are_broken(own_images):
    done = wrenn(own_images.data_dir, "run", "--template", "busybox", "--", "echo", "fine")
    assert (done.returncode, done.stdout) == (0, "fine\n")


@pytest.mark.parametrize("name", ["vmlinux", "initrd.img", "rootfs.ext4"])
@pytest.mark.parametrize("how", ["truncated", "changed", "missing"])
def test_a_broken_kernel_or_image_is_named_and_not_booted(own_images, name, how):
    directory = own_images.image_name("busybox").resolve()
    if name != "rootfs.ext4":
        directory = own_images.current_kernel.resolve()
    broken = directory / name
    if how == "missing":
        broken.unlink()
    elif how == "truncated":
        os.truncate(broken, 4096)
    else:
        with broken.open("r+b") as file:
            file.seek(8192)
            file.write(b"changed")
    done = wrenn(own_images.data_dir, "run", "--template", "busybox", "--", "true")
    assert_clear(done, 125, name, "wrenn setup --force")


def test_a_data_directory_with_other_things_in_it(tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert_clear(wrenn(tmp_path, "run", "--", "true"), 125, "not empty")


@pytest.mark.parametrize("file", ["/etc/passwd", "/nonexistent"])
def test_what_is_no_program_is_not_taken_for_firecracker(data_dir, layout, file):
    assert_clear(wrenn(data_dir, "setup", "--firecracker", file), 125, file)
    assert not layout.firecracker.exists()


def test_a_program_that_boots_no_guest_is_not_taken_and_the_old_one_stays(data_dir, layout):
    layout.firecracker.write_bytes(b"the old one")
    try:
        done = wrenn(data_dir, "setup", "--firecracker", "/usr/bin/busybox")
        assert done.returncode == 125
        assert "/usr/bin/busybox was not taken" in done.stderr
        assert "hint: Firecracker 1.16.1 or newer is taken where KVM works" in done.stderr
        assert layout.firecracker.read_bytes() == b"the old one"
        assert [p.name for p in layout.vmm.glob("*.tmp")] == []
    finally:
        layout.firecracker.unlink()


def test_setup_with_everything_there_is_done_at_once(data_dir):
    assert wrenn(data_dir, "setup").returncode == 0


def test_image_ls_and_version(data_dir):
    names = {
        i["name"] for i in json.loads(wrenn(data_dir, "image", "ls", "--json").stdout)["images"]
    }
    assert {"base", "busybox"} <= names
    assert "busybox" in wrenn(data_dir, "image", "ls").stdout
    assert wrenn(data_dir, "version").stdout.startswith("wrenn ")
