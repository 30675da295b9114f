"""The Firecracker API, served by QEMU."""
