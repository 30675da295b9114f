"""One microVM over the Firecracker API."""
