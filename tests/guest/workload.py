"""A program for inside a guest: memory and files with known contents, changed at random.

    workload.py serve SOCKET DIRECTORY MIB FILES    keep them, until told to stop
    workload.py ask SOCKET REQUEST                  print the answer, one line of JSON

Requests: `fill SEED` gives every page something to hold; `step SEED COUNT` changes COUNT pages and
some files; `check` compares every page and file with what it must hold; `stop`. Each answer has a
digest of the whole model, which the host remembers: a guest that was taken back as a whole would
find itself in order.

It imports the standard library only and runs on the interpreter of the guest agent.
"""

import json
import mmap
import os
import random
import socket
import sys
import zlib

PAGE = 4096
FILE_PAGES = 16
MADV_DONTNEED = 4


class Pages:
    """A region whose every page is one 8-byte word, repeated; 0 for a page of zeros."""

    def __init__(self, mib):
        self.words = [0] * (mib << 8)
        self.memory = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def fill(self, chance):
        for page in range(len(self.words)):
            self.words[page] = chance.getrandbits(64)
            self.memory[page * PAGE : page * PAGE + PAGE] = content(self.words[page])

    def change(self, chance):
        page = chance.randrange(len(self.words))
        at = page * PAGE
        kind = chance.randrange(6)
        if kind == 0:  # zeroed by writing
            self.words[page] = 0
            self.memory[at : at + PAGE] = bytes(PAGE)
        elif kind == 1:  # given back: zeros when it is touched again
            self.words[page] = 0
            self.memory.madvise(MADV_DONTNEED, at, PAGE)
        elif kind == 2:  # written, but the same as before
            self.memory[at : at + PAGE] = content(self.words[page])
        else:
            self.words[page] = chance.getrandbits(64)
            self.memory[at : at + PAGE] = content(self.words[page])

    def wrong(self):
        for page, word in enumerate(self.words):
            if self.memory[page * PAGE : page * PAGE + PAGE] != content(word):
                yield f"page {page}"


class Files:
    """Small files of repeated words, some of them synced, some only in the page cache."""

    def __init__(self, directory, count):
        from pathlib import Path  # 100 ms in an emulated guest, which asking does not need

        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.words = [0] * count

    def path(self, number):
        return self.directory / str(number)

    def change(self, chance):
        number = chance.randrange(len(self.words))
        self.words[number] = chance.getrandbits(64)
        with self.path(number).open("wb") as file:
            file.write(content(self.words[number]) * FILE_PAGES)
            if chance.randrange(2):
                file.flush()
                os.fsync(file.fileno())

    def wrong(self):
        for number, word in enumerate(self.words):
            if word and self.path(number).read_bytes() != content(word) * FILE_PAGES:
                yield f"file {number}"


def content(word):
    return word.to_bytes(8, "little") * (PAGE // 8)


def churn(chance):
    """Memory that is taken, dirtied and given back: its pages come to others, not as zeros."""
    with mmap.mmap(-1, chance.randrange(1, 9) << 20) as passing:
        for at in range(0, len(passing), PAGE):
            passing[at] = 255


def digest(*models):
    return zlib.crc32(repr([model.words for model in models]).encode())


def serve(path, directory, mib, count):
    pages, files = Pages(mib), Files(directory, count)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(4)
        print("serving", flush=True)
        while True:
            asker, _ = listener.accept()
            with asker:
                request = asker.recv(200).decode().split()
                answer = perform(request, pages, files)
                asker.sendall(json.dumps({**answer, "digest": digest(pages, files)}).encode())
            if request[0] == "stop":
                return


def perform(request, pages, files):
    if request[0] == "step":
        chance = random.Random(int(request[1]))
        for number in range(int(request[2])):
            pages.change(chance)
            if number % 50 == 0:
                files.change(chance)
        churn(chance)
        return {}
    if request[0] == "fill":
        pages.fill(random.Random(int(request[1])))
        return {}
    if request[0] == "check":
        wrong = [*pages.wrong(), *files.wrong()]
        return {"wrong": wrong[:20], "wrong_count": len(wrong)}
    return {}


def ask(path, request):
    with socket.socket(socket.AF_UNIX) as asker:
        asker.connect(path)
        asker.sendall(request.encode())
        answer = b""
        while part := asker.recv(65536):
            answer += part
    print(answer.decode())


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        ask(sys.argv[2], sys.argv[3])
