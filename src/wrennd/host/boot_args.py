"""The guest's kernel command line. Pure. World-readable in the guest: it never holds a secret."""

from ipaddress import IPv4Address

from wrennd.network.slot import Slot

MAX_BYTES = 2048  # Firecracker's limit
# The kernel's crypto tests itself at boot, which takes a quarter of it where the CPU is emulated.
BASE = "console=ttyS0 root=/dev/vda rw reboot=k panic=1 quiet loglevel=4 cryptomgr.notests"


def boot_args(slot: Slot, hostname: str) -> str:
    """What `images/wrenn-init.sh` reads, behind what the kernel reads.

    Not `nomodule` (our initrd loads modules) and never `acpi=off` (devices are found by ACPI).
    """
    args = (
        f"{BASE} wrenn.ip={slot.guest_address}/{slot.guest_prefix} wrenn.gw={slot.gateway_address}"
        f" wrenn.dns={_joined(slot.dns)} wrenn.hostname={hostname}"
    )
    assert len(args) < MAX_BYTES
    return args


def _joined(addresses: tuple[IPv4Address, ...]) -> str:
    return ",".join(str(address) for address in addresses)
