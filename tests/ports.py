"""Ports for servers that tests start by their number."""

import random
import socket

# Below what the kernel gives to outgoing connections, of which the tests beside this one have many:
# so nobody has taken it until the server listens, or while it is being started again.
OURS = range(20000, 32768)


def free_port(host: str = "127.0.0.1") -> int:
    """Nobody listens there."""
    for port in random.sample(OURS, 100):
        try:
            with socket.create_server((host, port)):
                return port
        except OSError:
            continue
    raise AssertionError(f"no port of {OURS} is free")
