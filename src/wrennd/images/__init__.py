"""Kernels and root filesystems: how they are built and found."""
