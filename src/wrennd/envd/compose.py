"""POST /files/compose: several files become one, in the guest, and are gone afterwards.

What comes out takes its name only when it is complete, so that a failure loses nothing.
"""

from __future__ import annotations

import os

from wrennd.envd import fields, files, jsontext
from wrennd.envd.connect import RpcError
from wrennd.envd.files import FileError
from wrennd.envd.jobs import Job
from wrennd.envd.paths import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.connection import Exchange
    from wrennd.envd.init import Settings
    from wrennd.envd.jobs import Steps
    from wrennd.envd.loop import Loop

MAX_BODY_BYTES = 4 << 20
STEP_BYTES = 1 << 20
SUFFIX_BYTES = 8


class Compose:
    """Handler: collects the body, then does it."""

    def __init__(self, exchange: Exchange, loop: Loop, settings: Settings) -> None:
        self._exchange = exchange
        self._loop = loop
        self._settings = settings
        self._body = bytearray()
        self._job: Job | None = None

    def data(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MAX_BODY_BYTES:
            self._exchange.fail(413, f"the body exceeds the {MAX_BODY_BYTES} bytes allowed")

    def end(self) -> None:
        try:
            order = jsontext.decode_object(self._body)
            sources = fields.texts(order, "source_paths")
            destination = fields.text(order, "destination") or ""
            username = fields.text(order, "username") or ""
        except (ValueError, RpcError) as error:
            self._exchange.fail(400, f"the body can't be read: {error}")
            return
        self._job = Job(self._loop, self._steps(sources, destination, username))

    def drained(self) -> None:
        pass

    def closed(self) -> None:
        if self._job is not None:
            self._job.close()

    def _steps(self, sources: list[str], destination: str, username: str) -> Steps:
        try:
            headers = self._exchange.request.headers
            account = files.find_account(self._settings, username, headers)
            path = files.file_path(destination, account, self._settings)
            found = [files.file_path(source, account, self._settings) for source in sources]
            if not found:
                raise FileError(400, "there are no source_paths")
            temporary = f"{path}.{os.urandom(SUFFIX_BYTES).hex()}"
            target = files.create(temporary, account)
            try:
                yield from concatenate(found, target, path)
                check_replaceable(path)
                os.rename(temporary, path)
                temporary = ""
            finally:
                os.close(target)
                if temporary:
                    os.unlink(temporary)
            yield from remove_all(found, path)
        except FileError as error:
            files.fail(self._exchange, error)
        except OSError as error:
            files.fail(self._exchange, files.file_error(error, destination))
        else:
            told = printable(path)
            reply = {"path": told, "name": os.path.basename(told), "type": "file"}
            self._exchange.reply_json(200, reply)


def check_replaceable(path: str) -> None:
    """A file may be replaced; anything else that is there is not ours to drop."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise FileError(400, f"path '{printable(path)}' is not a regular file")


def concatenate(sources: list[str], target: int, path: str) -> Steps:
    """Errors: FileError."""
    for source in sources:
        fd = files.open_regular(source)
        try:
            while os.sendfile(target, fd, None, STEP_BYTES):
                yield None
        except OSError as error:
            raise files.file_error(error, path) from None
        finally:
            os.close(fd)


def remove_all(sources: list[str], but: str) -> Steps:
    """Errors: OSError. A source may be named twice, and may be the destination."""
    for source in sources:
        try:
            if source != but:
                os.unlink(source)
        except FileNotFoundError:
            pass
        yield None
