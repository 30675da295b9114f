"""The shell scripts of the guest: clean, and the same in every shell that may run them."""

import ipaddress
import re

import pytest

from wrennd.images import recipe
from wrennd.linux.process import run

SCRIPTS = ("wrenn-init.sh", "initrd-init.sh")
SHELLS = (("dash",), ("bash",), ("busybox", "sh"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_has_nothing_to_say(name):
    script = recipe.text(name).replace("#!/bin/busybox sh", "#!/bin/sh")
    script = script.replace("#!/usr/lib/wrenn/busybox sh", "#!/bin/sh")
    assert run(("shellcheck", "--shell=sh", "-"), stdin=script, timeout_s=30).stdout == ""


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_shell_can_parse_it(name, shell):
    run((*shell, "-n"), stdin=recipe.text(name), timeout_s=60)


def function(name: str) -> str:
    found = re.search(rf"^{name}\(\) {{\n.*?^}}\n", recipe.text("wrenn-init.sh"), re.M | re.S)
    assert found is not None
    return found[0]


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_netmasks_of_all_prefixes(shell):
    loop = "for n in $(seq 0 32); do netmask $n; echo $mask; done"
    said = run(shell, stdin=function("netmask") + loop, timeout_s=60).stdout.split()
    assert said == [str(ipaddress.ip_network(f"0.0.0.0/{n}").netmask) for n in range(33)]


def test_no_tool_of_the_image_is_used():
    """Every command is the shell's own or goes through $busybox: an image may have none."""
    for tool in ("mount", "mkdir", "ln", "rm", "sync", "reboot", "ifconfig", "route", "ip", "cat"):
        for line in recipe.text("wrenn-init.sh").splitlines():
            assert not re.match(rf"\s*{tool}\b", line), line


def test_init_says_what_the_benchmark_looks_for():
    script = recipe.text("wrenn-init.sh")
    assert 'say "started"' in script
    assert 'say "envd started"' in script
