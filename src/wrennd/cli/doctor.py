"""`wrenn doctor`: what will be used, what is missing, what to do."""

import dataclasses
import json
import shutil
import sys
import textwrap

from wrennd.cli import standalone
from wrennd.cli.options import DataDir, Json, configured

HELP = "Say what is used, what is missing, what to do."
MARKS = {"ok": "ok     ", "note": "note   ", "missing": "MISSING"}
INDENT = " " * 9


def doctor(as_json: Json = False, data_dir: DataDir = None) -> int:
    """Exit code 1 when something that sandboxes need is missing."""
    checks = standalone.doctor(configured(data_dir))
    is_fit = all(check.status != "missing" for check in checks)
    if as_json:
        listed = [dataclasses.asdict(check) for check in checks]
        print(json.dumps({"ok": is_fit, "checks": listed}))
        return 0 if is_fit else 1
    for check in checks:
        _print(f"{MARKS[check.status]}  {check.name}: {check.found}")
        if check.advice and check.status != "ok":
            label = "to do" if check.status == "missing" else "better"
            _print(f"{INDENT}{label}: {check.advice}")
    if not is_fit:
        print("something that sandboxes need is missing", file=sys.stderr)
    return 0 if is_fit else 1


def _print(text: str) -> None:
    """Words are kept whole in a terminal; a program gets a line."""
    if sys.stdout.isatty():
        columns = shutil.get_terminal_size().columns
        text = textwrap.fill(
            text,
            columns,
            subsequent_indent=INDENT,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
    print(text)
