"""Uploads as multipart forms: `path`, then `file`, read as they arrive and never held whole."""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from wrennd.control.limits import FORM_BYTES
from wrennd.core.errors import InvalidInput, TooLarge

MAX_HEADERS = 16
BROKEN = "this body is not a whole multipart form"


@dataclass(frozen=True, kw_only=True)
class Upload:
    """The fields before the file, and the file's content, to be read to its end.

    Errors of reading: InvalidInput when the form breaks off, TooLarge.
    """

    fields: dict[str, str]
    content: AsyncIterator[bytes]


async def read_upload(
    content_type: str, chunks: AsyncIterator[bytes], *, max_bytes: int | None
) -> Upload:
    """The form up to where its file begins. Errors: InvalidInput."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 70:
        raise InvalidInput("send the file as multipart/form-data, with a boundary")
    form = _Form(boundary, chunks)
    fields = await form.read_fields()
    return Upload(fields=fields, content=form.read_file(max_bytes))


class _Form:
    """A form as a sequence of events: ("part", name), ("data", bytes), ("end", b"")."""

    def __init__(self, boundary: bytes, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._events: deque[tuple[str, bytes]] = deque()
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._is_whole = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": lambda data, start, end: self._note(0, data[start:end]),
                "on_header_value": lambda data, start, end: self._note(1, data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_part,
                "on_part_data": lambda data, start, end: self._event("data", data[start:end]),
                "on_part_end": lambda: self._event("end", b""),
                "on_end": self._end,
            },
        )

    async def read_fields(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        name, value = b"", bytearray()
        async for kind, data in self._read():
            if kind == "part" and data == b"file":
                return fields
            if kind == "part":
                name, value = data, bytearray()
            elif kind == "data":
                value += data
                if len(value) > FORM_BYTES:
                    raise TooLarge(f"a form's field may have {FORM_BYTES} bytes")
            else:
                fields[_text(name)] = _text(bytes(value))
        raise InvalidInput("this form has no file", hint="the part's name is file")

    async def read_file(self, max_bytes: int | None) -> AsyncIterator[bytes]:
        count = 0
        async for kind, data in self._read():
            if kind == "end":
                break
            count += len(data)
            if max_bytes is not None and count > max_bytes:
                raise TooLarge(
                    f"a file of more than {max_bytes} bytes can't be written at once",
                    hint="use files/stream/write",
                )
            yield data
        async for _ in self._read():
            pass  # what follows the file is not asked for
        if not self._is_whole:
            raise InvalidInput(BROKEN)

    async def _read(self) -> AsyncIterator[tuple[str, bytes]]:
        while True:
            while self._events:
                yield self._events.popleft()
            chunk = await anext(self._chunks, None)
            if chunk is None:
                return
            try:
                self._parser.write(chunk)
            except FormParserError:
                raise InvalidInput(BROKEN) from None

    def _note(self, which: int, data: bytes) -> None:
        self._header[which].extend(data)
        if len(self._header[which]) > FORM_BYTES:
            raise InvalidInput(BROKEN)

    def _end_header(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = (bytearray(), bytearray())
        self._headers[name.lower()] = value
        if len(self._headers) > MAX_HEADERS:
            raise InvalidInput(BROKEN)

    def _begin_part(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._event("part", options.get(b"name", b""))

    def _event(self, kind: str, data: bytes) -> None:
        self._events.append((kind, data))

    def _end(self) -> None:
        self._is_whole = True


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInput("a form's field is not UTF-8") from None
