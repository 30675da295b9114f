"""JSON written as serde_json writes it: compact, text as it is, its way with numbers."""

import json
from decimal import Decimal


def to_json(value: object) -> bytes:
    """The keys of objects stay in their order; text beyond ASCII is not escaped."""
    return _written(value).encode(errors="surrogatepass")


def _written(value: object) -> str:
    if isinstance(value, dict):
        pairs = (f"{_written(key)}:{_written(item)}" for key, item in value.items())
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(_written(item) for item in value)}]"
    if isinstance(value, float):
        return float_text(value)
    return json.dumps(value, ensure_ascii=False)


def float_text(value: float) -> str:
    """The shortest digits, as Python's; but exponents begin below 1e-5, and have no zeros."""
    text = repr(value)
    digits, mark, exponent = text.partition("e")
    if not mark:
        return text
    if exponent == "-05":
        return f"{Decimal(text):f}"
    return f"{digits}e{exponent[0]}{exponent[1:].lstrip('0')}"
