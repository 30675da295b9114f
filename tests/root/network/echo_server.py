"""Run as a program: answer TCP and UDP at ADDRESS... on PORT..., and tell who came.

    echo_server.py ADDRESS,ADDRESS... PORT,PORT...

Prints "ready", then one JSON line for each connection or datagram: protocol, our address and
port, the peer's address. The answer is the peer's address as it is seen here.
"""

import json
import selectors
import socket
import sys


def main() -> None:
    addresses, ports = (argument.split(",") for argument in sys.argv[1:])
    ready = selectors.DefaultSelector()
    for address in addresses:
        for port in map(int, ports):
            listener = socket.create_server((address, port), backlog=64)
            ready.register(listener, selectors.EVENT_READ, serve_tcp)
            datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            datagrams.bind((address, port))
            ready.register(datagrams, selectors.EVENT_READ, serve_udp)
    print("ready", flush=True)
    while True:
        for key, _ in ready.select():
            key.data(key.fileobj)


def serve_tcp(listener: socket.socket) -> None:
    connection, (peer, _) = listener.accept()
    with connection:
        tell("tcp", listener, peer)
        connection.settimeout(2)
        connection.sendall(peer.encode())


def serve_udp(datagrams: socket.socket) -> None:
    _, (peer, port) = datagrams.recvfrom(2048)
    tell("udp", datagrams, peer)
    datagrams.sendto(peer.encode(), (peer, port))


def tell(protocol: str, here: socket.socket, peer: str) -> None:
    address, port = here.getsockname()
    print(
        json.dumps({"protocol": protocol, "address": address, "port": port, "peer": peer}),
        flush=True,
    )


if __name__ == "__main__":
    main()
