"""`wrenn doctor`: what will be used, what is missing, what to do."""

import dataclasses
import json
import sys

from wrennd.cli import standalone
from wrennd.cli.options import DataDir, Json, configured

HELP = "Say what is used, what is missing, what to do."
MARKS = {"ok": "ok     ", "note": "note   ", "missing": "MISSING"}


def doctor(as_json: Json = False, data_dir: DataDir = None) -> int:
    """Exit code 1 when something that sandboxes need is missing."""
    checks = standalone.doctor(configured(data_dir))
    is_fit = all(check.status != "missing" for check in checks)
    if as_json:
        listed = [dataclasses.asdict(check) for check in checks]
        print(json.dumps({"ok": is_fit, "checks": listed}))
        return 0 if is_fit else 1
    for check in checks:
        print(f"{MARKS[check.status]}  {check.name}: {check.found}")
        if check.advice and check.status != "ok":
            print(f"         {'to do' if check.status == 'missing' else 'better'}: {check.advice}")
    if not is_fit:
        print("something that sandboxes need is missing", file=sys.stderr)
    return 0 if is_fit else 1
