"""The guest agent: one single-threaded program that runs in every guest, on port 49983.

It is imported under emulation at every boot, where each module costs milliseconds, and it is
frozen into snapshots. So it uses no dependency, and of the standard library only what is cheap
to import: no dataclasses, enum, typing, logging, socket or json (see `interpreter.py`). Values
are plain classes with `__slots__`; types that annotations need are imported for mypy only.
docs/envd.md describes what it does on the wire.
"""

# The version of the reference agent whose contract this one keeps; clients gate features by it.
VERSION = "0.6.13"
