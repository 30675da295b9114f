"""Run as a program inside a namespace: try what stdin says (a JSON list), all at once.

Each probe is {"protocol": "tcp" | "udp" | "icmp", "address", "port"}, and its outcome the answer's
text, or "refused: ERRNO NAME", or "silence" after SECONDS (the argument). The outcomes are printed
as a JSON list, in order.
"""

import errno
import json
import os
import socket
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0


def attempt(probe: dict[str, str | int]) -> str:
    try:
        return {"tcp": tcp, "udp": udp, "icmp": icmp}[str(probe["protocol"])](
            str(probe["address"]), int(probe.get("port", 0))
        )
    except TimeoutError:
        return "silence"
    except OSError as error:
        return f"refused: {errno.errorcode.get(error.errno or 0, error)}"


def tcp(address: str, port: int) -> str:
    with socket.create_connection((address, port), timeout=SECONDS) as connection:
        return connection.recv(100).decode()


def udp(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.connect((address, port))
        sock.send(b"?")
        return sock.recv(100).decode()


def icmp(address: str, _port: int) -> str:
    mine = os.urandom(8)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(SECONDS)
        sock.connect((address, 0))
        sock.send(echo_request(mine))
        while True:
            packet = sock.recv(1500)
            body = packet[(packet[0] & 15) * 4 :]
            if body[0] == 0 and body[8:16] == mine:
                return "pong"


def echo_request(payload: bytes) -> bytes:
    header = struct.pack("!BBHHH", 8, 0, 0, 7, 1)
    return header[:2] + checksum(header + payload) + header[4:] + payload


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


if __name__ == "__main__":
    probes = json.load(sys.stdin)
    with ThreadPoolExecutor(max(1, len(probes))) as pool:
        print(json.dumps(list(pool.map(attempt, probes))))
