"""Run in the lab: give the images' files the times that their manifests name.

The disk that they came on was written by mke2fs, which keeps whole seconds only.
"""

import json
import os
import sys
from pathlib import Path

for manifest in Path(sys.argv[1]).glob("*/*/manifest.json"):
    for name, facts in json.loads(manifest.read_text())["files"].items():
        os.utime(manifest.with_name(name), ns=(facts["mtime_ns"], facts["mtime_ns"]))
