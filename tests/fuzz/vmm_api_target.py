"""The program that libFuzzer drives: bytes of a client, from the wire to what they ask for.

Run by test_vmm_api in an environment of its own, with `src` and `tests` on the path. Whatever is
raised here but not caught is a finding.
"""

import json
import sys
import zlib

import atheris

with atheris.instrument_imports(include=["wrennd.qemu_vmm"]):
    from wrennd.qemu_vmm import document, routes, schema, state_file
    from wrennd.qemu_vmm.faults import Fault
    from wrennd.qemu_vmm.json_reader import JsonError, Reader
    from wrennd.qemu_vmm.json_writer import to_json
    from wrennd.qemu_vmm.wire import ParseError, Parser, Request, interim


def events_of(pieces):
    """All events up to the first error; what follows one depends on how the bytes came."""
    parser, found = Parser(), []
    for piece in pieces:
        found += parser.feed(piece)
        if found and isinstance(found[-1], ParseError):
            break
    return found


def http(data):
    step = data[0] % 40 + 1
    stream = data[1:]
    found = events_of([stream])
    assert events_of(stream[at : at + step] for at in range(0, len(stream), step)) == found
    for event in found:
        if isinstance(event, Request):
            understood(event)
        elif isinstance(event, ParseError):
            event.to_response()
        else:
            interim(event)


def understood(request):
    try:
        action = routes.parse(request)
    except Fault:
        return
    routes.deprecation(action)
    to_json(getattr(action, "value", None))


def value(data):
    """A value that is taken is written and read again, and Python's own reader takes it too."""
    reader = Reader(data)
    try:
        found = reader.value()
        reader.end()
    except JsonError as error:
        check(error, data)
        return
    again = Reader(to_json(found)).value()
    assert again == found, (again, found)
    json.loads(data.decode())


def check(error, data):
    assert error.line >= 1, error
    assert 0 <= error.column <= len(data), error


def whole_machine(data):
    try:
        schema.decode(document.DOCUMENT, data)
    except JsonError as error:
        check(error, data)


def state(data):
    """Once as it is, and once with the checksum that nobody guesses."""
    for file in (data, data + zlib.crc32(data).to_bytes(8, "little")):
        try:
            state_file.decode(file)
        except state_file.StateFileError:
            continue


TARGETS = (http, value, whole_machine, state)


def one_input(data):
    if len(data) < 2:
        return
    TARGETS[data[0] % len(TARGETS)](data[1:])


atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
