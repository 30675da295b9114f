"""Sizes for people: `format_bytes(4 << 20)` is "4.0 MiB"."""

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def format_bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{int(size)} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
