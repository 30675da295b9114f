import pytest

from wrennd.core.errors import Error


@pytest.mark.parametrize("kind", Error.by_code.values(), ids=lambda k: k.code)
def test_every_class_survives_the_wire(kind):
    sent = kind("the disk /x is full", hint="free some space")
    received = Error.from_wire(sent.to_wire())
    assert type(received) is kind
    assert (str(received), received.hint) == (str(sent), sent.hint)


def test_an_unknown_code_is_the_base_class():
    assert type(Error.from_wire({"code": "from_the_future", "message": "x"})) is Error


def test_a_code_is_taken_once():
    with pytest.raises(TypeError, match="duplicate error code 'not_found'"):
        type("Again", (Error,), {"code": "not_found"})


def test_the_drawing_at_the_top_names_every_class_with_its_code_and_status():
    from wrennd.core import errors

    for kind in Error.by_code.values():
        line = next(x for x in errors.__doc__.splitlines() if f" {kind.__name__} " in f"{x} ")
        assert kind.code in line
        assert str(kind.status) in line
