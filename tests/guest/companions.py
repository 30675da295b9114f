"""Programs for inside a guest that are in the middle of something whenever it is stopped.

    companions.py tcp DIRECTORY     two processes exchange numbers over a connection on loopback;
                                    a third listens on PORT, where nobody has called yet
    companions.py sqlite DIRECTORY  rows are written to a database, each in a transaction
    companions.py call              call at PORT, and print what is said there

The number that was reached stands in DIRECTORY/tcp or DIRECTORY/sqlite, and the program's process
group in a file of that name with .group; one that finds something wrong writes that there instead,
and ends.
"""

import os
import socket
import sys
import time
from pathlib import Path

PORT = 7001
PACE_S = 0.05


def tcp(reached):
    ours, its = connected()
    if os.fork() == 0:
        while number := its.recv(8, socket.MSG_WAITALL):
            its.sendall((int.from_bytes(number, "little") + 1).to_bytes(8, "little"))
        os._exit(1)
    if os.fork() == 0:
        welcome()
    number = 0
    while True:
        ours.sendall(number.to_bytes(8, "little"))
        answer = int.from_bytes(ours.recv(8, socket.MSG_WAITALL), "little")
        if answer != number + 1:
            raise ValueError(f"{answer} came as the answer to {number}")
        number = answer
        tell(reached, number)


def connected():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


def welcome():
    with socket.create_server(("127.0.0.1", PORT)) as listener:
        while True:
            caller, _ = listener.accept()
            with caller:
                caller.sendall(b"welcome")


def call():
    with socket.create_connection(("127.0.0.1", PORT)) as caller:
        print(caller.recv(100, socket.MSG_WAITALL).decode())


def sqlite(reached):
    import sqlite3

    number = 0
    connection = sqlite3.connect(reached.with_name("rows.db"), timeout=60)
    connection.execute("create table rows (number integer primary key, data blob)")
    while True:
        number += 1
        with connection:
            connection.execute("insert into rows values (?, randomblob(500))", (number,))
        tell(reached, number)


def tell(path, what):
    made = path.with_name(f"{path.name}.new")
    made.write_text(str(what))
    made.rename(path)
    time.sleep(PACE_S)


if __name__ == "__main__":
    if sys.argv[1] == "call":
        call()
    else:
        file = Path(sys.argv[2], sys.argv[1])
        os.setpgid(0, 0)
        file.with_suffix(".group").write_text(str(os.getpid()))
        try:
            {"tcp": tcp, "sqlite": sqlite}[sys.argv[1]](file)
        except Exception as error:
            tell(file, repr(error))
            raise
