"""GET /files: a file out, no faster than its client reads.

Large files go from the page cache to the socket without passing through Python. What the kernel
makes up (/proc, /sys) lies about its size, so a size counts only when there is at least one full
piece to be read.
"""

from __future__ import annotations

import os
import time

from wrennd.envd import files
from wrennd.envd.files import FileError
from wrennd.envd.jobs import WAIT, Job
from wrennd.envd.metadata import as_headers, read_metadata
from wrennd.envd.paths import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.auth import Access
    from wrennd.envd.connection import Exchange, Headers
    from wrennd.envd.init import Settings
    from wrennd.envd.jobs import Steps
    from wrennd.envd.loop import Loop

READ_BYTES = 64 << 10
# More would compress hardly better, and an emulated guest is slow enough at this.
GZIP_LEVEL = 1
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Download:
    """Handler. Owns the open file."""

    def __init__(self, exchange: Exchange, loop: Loop, access: Access, settings: Settings) -> None:
        self._exchange = exchange
        self._loop = loop
        self._access = access
        self._settings = settings
        self._job: Job | None = None
        self._fd = -1
        self._path = ""

    def data(self, data: bytes) -> None:
        pass

    def end(self) -> None:
        try:
            self._open()
            coding = choose_coding(self._exchange.request.headers.get("accept-encoding", ""))
            self._send(coding, files.read(self._fd, READ_BYTES, self._path))
        except FileError as error:
            self.closed()
            files.fail(self._exchange, error)

    def drained(self) -> None:
        if self._job is not None:
            self._job.resume()

    def closed(self) -> None:
        if self._job is not None:
            self._job.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        """Errors: FileError."""
        headers = self._exchange.request.headers
        query = files.Query(self._exchange.request.query)
        files.check_access(self._access, headers, query, "read")
        account = files.find_account(self._settings, query.username, headers)
        self._path = files.file_path(query.path, account, self._settings)
        self._fd = files.open_regular(self._path)

    def _send(self, coding: str, first: bytes) -> None:
        """Errors: FileError."""
        found = os.fstat(self._fd)
        headers = describe(self._path, self._fd, found)
        request = self._exchange.request.headers
        is_whole = len(first) < READ_BYTES
        size = len(first) if is_whole else found.st_size
        has_size = size >= len(first)
        wanted = None
        if has_size and "range" in request and may_range(request, headers):
            wanted = parse_range(request["range"], size)
        if wanted is not None:
            self._send_range(headers, wanted, size)
        elif coding == "gzip":
            self._stream([*headers, ("Content-Encoding", "gzip")], first, compress=True)
        elif is_whole:
            self.closed()
            self._exchange.reply(200, headers, first)
        elif has_size:
            self._exchange.reply_file(200, headers, self._fd, range(size), self.closed)
        else:
            self._stream(headers, first, compress=False)

    def _send_range(self, headers: Headers, wanted: range, size: int) -> None:
        if not wanted:
            self.closed()
            headers = [("Content-Range", f"bytes */{size}")]
            body = {"code": 416, "message": f"the file has {size} bytes"}
            self._exchange.reply_json(416, body, headers)
            return
        place = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
        headers = [*headers, ("Content-Range", place)]
        self._exchange.reply_file(206, headers, self._fd, wanted, self.closed)

    def _stream(self, headers: Headers, first: bytes, *, compress: bool) -> None:
        self._exchange.begin(200, headers)
        self._job = Job(self._loop, self._steps(first, compress=compress))

    def _steps(self, data: bytes, *, compress: bool) -> Steps:
        import zlib

        packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        try:
            while data:
                self._exchange.write(packer.compress(data) if compress else data)
                yield WAIT if self._exchange.is_full else None
                data = files.read(self._fd, READ_BYTES, self._path)
        except FileError:
            # Too late for a status: the broken body tells.
            self._exchange.abort()
            return
        self._exchange.write(packer.flush() if compress else b"")
        self._exchange.finish()
        os.close(self._fd)
        self._fd = -1


def describe(path: str, fd: int, found: os.stat_result) -> Headers:
    """The headers of a reply that don't depend on which part is sent."""
    return [
        ("Content-Type", "application/octet-stream"),
        ("Content-Disposition", disposition(os.path.basename(path))),
        ("Last-Modified", http_date(found.st_mtime)),
        ("ETag", f'"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"'),
        ("Accept-Ranges", "bytes"),
        ("Vary", "Accept-Encoding"),
        *as_headers(read_metadata(fd)),
    ]


def disposition(name: str) -> str:
    """`inline` with the file's name, also one that is not ASCII (RFC 6266)."""
    name = printable(name)
    plain = "".join([c if " " <= c <= "~" and c not in '"\\' else "_" for c in name])
    value = f'inline; filename="{plain}"'
    if plain == name:
        return value
    quoted = "".join(
        [chr(b) if chr(b).isalnum() and b < 128 else f"%{b:02X}" for b in name.encode()]
    )
    return f"{value}; filename*=UTF-8''{quoted}"


def http_date(moment_s: float) -> str:
    at = time.gmtime(max(0, moment_s))
    return (
        f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04} "
        f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"
    )


def choose_coding(accepted: str) -> str:
    """`gzip` or `identity`. Errors: FileError 406 when neither will do.

    Who lists several codings says what it can read, and most clients always do; who names gzip
    alone, or prefers it by weight, asks for it. A guest's processor is worth more than its link.
    """
    weights: dict[str, float] = {}
    for item in accepted.lower().split(","):
        name, _, parameter = item.partition(";")
        if name.strip():
            weights[name.strip()] = _weight(parameter.strip())
    identity = weights.get("identity", weights.get("*", 1.0) and 1.0)
    gzip = weights.get("gzip", weights.get("*", 0.0) if not identity else 0.0)
    if not identity and not gzip:
        raise FileError(406, f"the file can't be sent in any of {accepted!r}")
    if not identity or (gzip and set(weights) == {"gzip"}):
        return "gzip"
    return "gzip" if gzip > weights.get("identity", 1.0) else "identity"


def _weight(parameter: str) -> float:
    if not parameter.startswith("q="):
        return 1.0
    try:
        return min(1.0, max(0.0, float(parameter[2:])))
    except ValueError:
        return 1.0


def may_range(request: dict[str, str], headers: Headers) -> bool:
    """If-Range: only when the client's part is of the file as it is now."""
    condition = request.get("if-range")
    current = dict(headers)
    return condition is None or condition in (current["ETag"], current["Last-Modified"])


def parse_range(text: str, size: int) -> range | None:
    """The bytes that are asked for; an empty range for none of these. None when it isn't one range
    of bytes, which the client must bear to be ignored."""
    unit, _, spec = text.partition("=")
    first, dash, last = [part.strip() for part in spec.partition("-")]
    numbers = [part for part in (first, last) if part]
    if unit.strip().lower() != "bytes" or not dash or not numbers:
        return None
    if not all(part.isascii() and part.isdigit() and len(part) <= 18 for part in numbers):
        return None
    if not first:
        return range(max(0, size - int(last)), size)
    stop = min(size, int(last) + 1) if last else size
    if last and int(last) < int(first):
        return None
    return range(int(first), stop)
