"""Run as a program inside a namespace: put frames on a link, or tell what passes there.

frames.py send LINK < lines of hex     sends each as one Ethernet frame
frames.py watch LINK                   prints "ready", then "SOURCE DESTINATION" of each packet
"""

import contextlib
import ipaddress
import socket
import sys

ETH_P_ALL = 3


def main() -> None:
    verb, link = sys.argv[1:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as sock:
        sock.bind((link, 0))
        if verb == "send":
            for line in sys.stdin:
                sock.send(bytes.fromhex(line))
        else:
            print("ready", flush=True)
            with contextlib.suppress(OSError):  # the link goes before us
                while True:
                    if packet := describe(sock.recv(2048)):
                        print(packet, flush=True)


def describe(frame: bytes) -> str:
    kind = frame[12:14]
    if kind == b"\x08\x00":
        return f"{ipaddress.ip_address(frame[26:30])} {ipaddress.ip_address(frame[30:34])}"
    if kind == b"\x86\xdd":
        return f"{ipaddress.ip_address(frame[22:38])} {ipaddress.ip_address(frame[38:54])}"
    return ""


if __name__ == "__main__":
    main()
