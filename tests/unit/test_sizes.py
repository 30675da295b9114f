"""The house limits: no module above 500 lines, no function above 60."""

import ast
from pathlib import Path

import pytest

import wrennd

SOURCE = Path(wrennd.__path__[0])
MODULES = [p for p in sorted(SOURCE.rglob("*.py")) if "gen" not in p.relative_to(SOURCE).parts]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_module_and_functions_are_small(path):
    text = path.read_text()
    assert text.count("\n") <= 500
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > 60
    ]
    assert long == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_module_says_what_it_owns(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
