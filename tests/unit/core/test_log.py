import io
import json
import logging

from wrennd.core import log


def emit(form):
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(log.JsonFormatter() if form == "json" else log.ConsoleFormatter())
    logger = logging.Logger("wrennd.test")
    logger.addHandler(handler)
    with log.bind(sandbox="abc"):
        logger.info("vm booted", extra={"vmm_pid": 7})
    return out.getvalue()


def test_json_lines_hold_bound_and_given_keys():
    line = json.loads(emit("json"))
    assert line["event"] == "vm booted"
    assert (line["sandbox"], line["vmm_pid"], line["level"]) == ("abc", 7, "info")


def test_console_lines_are_for_people():
    assert emit("console") == "info    vm booted  sandbox=abc vmm_pid=7\n"


def test_keys_are_unbound_after_the_block():
    with log.bind(sandbox="abc"):
        pass
    record = logging.makeLogRecord({"msg": "x"})
    assert "abc" not in log.ConsoleFormatter().format(record)
