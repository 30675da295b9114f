"""The smallest guest that shows what a VMM did, and one that does what it is told.

Our kernel's initrd has busybox and the modules; a second archive behind it adds the init below,
which `rdinit=/test-init` chooses. `test=WORD` on the command line says what it does. Told by files
and the console only, so that it runs under any VMM.
"""

import os
import re
from pathlib import Path
from typing import Self

from vmm_server import Server, wait_until
from wrennd.images import cpio

BOOT_S = 90.0  # an emulated guest on a machine that is busy with others
BLOCK = 4096
BOOT_ARGS = "console=ttyS0 reboot=k panic=1 quiet rdinit=/test-init"

INIT = r"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
eval "$(grep '^modprobe' /init | cut -d'|' -f1)"
for word in $(cat /proc/cmdline); do
	case $word in test=*) mode=${word#test=} ;; esac
done
echo "READY cpus=$(nproc)"
case $mode in
flood) exec yes "$(seq -s ' ' 1 200)" ;;
idle) while :; do sleep 1000; done ;;
told)
	# The first drive holds a number, commands, and the number again.
	last=0
	while :; do
		dd if=/dev/vda iflag=direct bs=4096 count=1 2>/dev/null | grep -v '^$' >/told
		read -r number </told
		if [ "$number" != "$last" ] && [ "$(tail -n 1 /told)" = "$number" ]; then
			last=$number
			sed '1d;$d' /told >/commands
			echo "BEGIN $number"
			sh /commands 2>&1
			echo "END $number status $?"
		fi
		usleep 20000
	done ;;
button)
	# The power button, where there is one; else the kernel itself knows Ctrl-Alt-Del.
	name=$(grep -l 'Power Button' /sys/class/input/event*/device/name)
	name=${name%/device/name}
	[ -z "$name" ] || exec </dev/input/${name##*/}
	echo LISTENING
	[ -n "$name" ] || while :; do sleep 1000; done
	dd bs=24 count=1 of=/dev/null 2>/dev/null ;;
devices)
	echo "written by the guest" | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null
	echo "vdb ro=$(cat /sys/block/vdb/ro) $(head -c 5 /dev/vdb)"
	echo "mac=$(cat /sys/class/net/eth0/address)"
	echo "mtu=$(cat /sys/class/net/eth0/mtu)"
	echo "rng=$(cat /sys/class/misc/hw_random/rng_current)"
	echo "clock=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
	;;
esac
reboot -f
"""


def make_initrd(path: Path, kernels: bytes) -> None:
    path.write_bytes(kernels + cpio.archive([cpio.file("test-init", INIT.encode(), 0o755)]))


def boot_source(kernel, initrd: Path, mode: str) -> dict[str, str]:
    return {
        "kernel_image_path": os.fspath(kernel.vmlinux),
        "initrd_path": os.fspath(initrd),
        "boot_args": f"{BOOT_ARGS} test={mode}",
    }


class ToldGuest:
    """A guest that runs commands. Its first drive, /dev/vda, and its console are taken.

    drive, number: of one that goes on from where another was: its drive, and its last order.
    """

    def __init__(self, server: Server, *, drive: Path | None = None, number: int = 0) -> None:
        self.server = server
        self.number = number
        self.drive = drive or server.directory / "told.img"
        self.console = server.directory / "console.log"

    @classmethod
    def restored(cls, guest: Self, server: Server) -> Self:
        """The same guest in another server, which prints to its standard output."""
        made = cls(server, drive=guest.drive, number=guest.number)
        made.console = server.output
        return made

    def configure(self, kernel, initrd: Path) -> None:
        """Before any other drive is named."""
        self.drive.write_bytes(b"0\n" + b"\n" * (BLOCK - 2))
        drive = {"drive_id": "told", "is_root_device": False, "path_on_host": str(self.drive)}
        self.server.done("PUT", "/drives/told", drive)
        self.server.done("PUT", "/boot-source", boot_source(kernel, initrd, "told"))
        self.server.done("PUT", "/serial", {"serial_out_path": str(self.console)})

    def start(self) -> None:
        self.server.done("PUT", "/actions", {"action_type": "InstanceStart"})
        self.wait_for("READY")

    def wait_for(self, words: str, timeout_s: float = BOOT_S) -> None:
        def is_there() -> bool:
            assert self.server.process.exit_code is None, self.server.text()
            return self.console.exists() and words in self.text()

        wait_until(is_there, f"{words!r} on the console", timeout_s)

    def text(self) -> str:
        """The lines of its console that are complete."""
        lines = self.console.read_text(errors="replace").replace("\r\n", "\n")
        return lines[: lines.rfind("\n") + 1]

    def tell(self, commands: str) -> int:
        """Have `commands` run; returns the number under which they print."""
        self.number += 1
        data = f"{self.number}\n{commands}\n{self.number}\n".encode()
        assert len(data) <= BLOCK
        with self.drive.open("r+b") as drive:
            drive.write(data + b"\n" * (BLOCK - len(data)))
        return self.number

    def run(self, commands: str, timeout_s: float = BOOT_S) -> str:
        """What `commands` print."""
        return self.printed(self.tell(commands), timeout_s)

    def printed(self, number: int, timeout_s: float = BOOT_S) -> str:
        self.wait_for(f"END {number} status", timeout_s)
        found = re.search(rf"BEGIN {number}\n(.*)END {number} status (\d+)\n", self.text(), re.S)
        assert found is not None, self.text()
        assert found.group(2) == "0", found.group(1)
        return found.group(1).strip()
