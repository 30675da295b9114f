"""A program for the guest's interpreter: compiles Python files for a place without sources.

Reads from stdin a JSON list of [source, target, name], name being what tracebacks shall call the
file, and writes unchecked-hash .pyc files (PEP 552): they stay valid whatever the clock or the
source says, so nothing is ever compiled in a guest. Run by path; imports nothing of this package,
and only what the guest's own library has.
"""

import importlib.util
import json
import marshal
import sys
from pathlib import Path

# Flags of a .pyc: bit 0, validity is by hash; bit 1 (not set), compare the hash with the source.
UNCHECKED_HASH = (1).to_bytes(4, "little")


def compiled(source: bytes, name: str) -> bytes:
    """A .pyc file's content. Errors: SyntaxError."""
    code = compile(source, name, "exec", dont_inherit=True)
    head = importlib.util.MAGIC_NUMBER + UNCHECKED_HASH + importlib.util.source_hash(source)
    return head + marshal.dumps(code)


def main() -> None:
    for source, target, name in json.load(sys.stdin):
        Path(target).write_bytes(compiled(Path(source).read_bytes(), name))


if __name__ == "__main__":
    main()
