"""Names within texts, as whole names: two test sessions' directories may begin alike."""

import re


def is_named(name: str, text: str) -> bool:
    """Whether the text has the name, or a path below it: `/d/data` is not in `/d/data-gw1`."""
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", text) is not None
