import re

import pytest

from wrennd.qemu_vmm.log import API_THREAD, Log
from wrennd.qemu_vmm.resources import Logger


class Lines:
    """A sink that keeps what it gets."""

    def __init__(self):
        self.text = ""

    def write(self, data):
        self.text += data.decode()
        return 0

    def close(self):
        raise AssertionError("the log doesn't own the sink that it begins with")


@pytest.fixture
def sink():
    return Lines()


@pytest.fixture
def log(sink):
    made = Log("vm-1", sink)
    yield made
    made.close()


def test_a_line(log, sink):
    log.info("hello", API_THREAD)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9} \[vm-1:fc_api\] hello\n", sink.text)


def test_what_is_shown_of_its_origin(log, sink):
    log.update(Logger(show_level=True, show_log_origin=True))
    log.warn("careful")
    assert re.search(r"\[vm-1:main:WARN:\S+:\d+\] careful", sink.text)


@pytest.mark.parametrize(
    ("level", "shown"),
    [("Off", ""), ("error", "e"), ("WARNING", "ew"), (None, "ewi"), ("debug", "ewid")],
)
def test_levels(log, sink, level, shown):
    log.update(Logger(level=level))
    for write, text in ((log.error, "e"), (log.warn, "w"), (log.info, "i"), (log.debug, "d")):
        write(text)
    assert "".join(line[-1] for line in sink.text.splitlines()) == shown


def test_only_one_module(log, sink):
    log.update(Logger(module="somewhere.else"))
    log.error("unseen")
    assert sink.text == ""


def test_a_file_takes_over(log, sink, tmp_path):
    for name in ("a", "b"):
        log.update(Logger(log_path=str(tmp_path / name)))
        log.info(name)
    assert (tmp_path / "a").read_text().endswith("] a\n")
    assert (tmp_path / "b").read_text().endswith("] b\n")
    assert sink.text == ""


def test_a_file_that_can_not_be_opened_changes_nothing(log, sink):
    with pytest.raises(OSError, match="No such file"):
        log.update(Logger(log_path="/nothing/there", level="Off"))
    log.info("still here")
    assert "still here" in sink.text
