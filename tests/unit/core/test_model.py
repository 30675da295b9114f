import pytest

from wrennd.core.errors import InvalidInput
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import Command, SandboxSpec


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vcpus": 0}, "0 vCPUs"),
        ({"vcpus": 33}, "33 vCPUs"),
        ({"mem_mib": 0}, "0 MiB"),
        ({"mem_mib": 7}, "7 MiB"),
        ({"mem_mib": 1 << 30}, "MiB"),
        ({"image": "../etc"}, "template name"),
        ({"image": ""}, "template name"),
        ({"id": "short"}, "sandbox id"),
    ],
)
def test_bad_specs_are_refused_with_a_hint(changes, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        SandboxSpec(**({"id": new_sandbox_id()} | changes))
    assert caught.value.hint


@pytest.mark.parametrize(
    "command",
    [
        {"argv": ()},
        {"argv": ("",)},
        {"argv": ("echo", "a\0b")},
        {"argv": ("echo",), "env": {"1X": "y"}},
        {"argv": ("echo",), "env": {"A=B": "y"}},
        {"argv": ("echo",), "cwd": "/\0"},
    ],
)
def test_bad_commands_are_refused(command):
    with pytest.raises(InvalidInput):
        Command(**command)


def test_ids_are_fit_for_host_names():
    made = {new_sandbox_id() for _ in range(100)}
    assert len(made) == 100
    assert all(len(i) == 20 and i.isalnum() and i == i.lower() for i in made)
