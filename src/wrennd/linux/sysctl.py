"""/proc/sys/net of the namespace that the caller is in: read and write numbers, find links."""

from pathlib import Path

NET = Path("/proc/sys/net")


def read(name: str) -> int:
    """`name` such as "ipv4/ip_forward"; FileNotFoundError when this kernel has none."""
    return int((NET / name).read_text())


def write(name: str, value: int) -> None:
    (NET / name).write_text(f"{value}\n")


def has(name: str) -> bool:
    return (NET / name).exists()
