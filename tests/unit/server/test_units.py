import re
from pathlib import Path

import pytest

from wrennd.core.config import DEFAULT_DATA_DIR
from wrennd.server import parts, serve
from wrennd.server.units import TOOL_TIMEOUT_S, data_dir_of, text


def test_the_unit_runs_what_it_is_told():
    unit = text(["/opt/my tools/wrenn", "up", "--domain", "50%$x"], {"WRENN_DATA_DIR": "/a $b%"})
    assert "ExecStart='/opt/my tools/wrenn' up --domain '50%%$$x'\n" in unit
    assert 'Environment="WRENN_DATA_DIR=/a $b%%"\n' in unit


def test_its_end_leaves_sandboxes_alone():
    unit = text(["wrenn", "up"], {})
    assert "\nKillMode=process\n" in unit
    assert "\nRestart=on-failure\n" in unit


@pytest.mark.parametrize("data_dir", ["/srv", '/srv/50% "wrenn" $x %%', "/a\\b", '/a\\\\"%'])
def test_a_unit_is_of_one_data_directory(data_dir):
    unit = text(["wrenn", "up"], {"WRENN_VMM": "auto", "WRENN_DATA_DIR": data_dir})
    assert data_dir_of(unit) == Path(data_dir)


def test_a_unit_that_names_none_is_of_the_default_one():
    assert data_dir_of(text(["wrenn", "up"], {})) == DEFAULT_DATA_DIR


def test_it_is_started_when_it_is_ready_and_never_given_up():
    unit = text(["wrenn", "up"], {})
    assert "\nType=notify\n" in unit
    assert "\nStartLimitIntervalSec=0\n" in unit
    start_s = int(re.search(r"TimeoutStartSec=(\d+)", unit)[1])
    stop_s = int(re.search(r"TimeoutStopSec=(\d+)", unit)[1])
    assert start_s > serve.READY_S
    assert stop_s > parts.AGENT_STOP_S + parts.SLACK_S + parts.CONTROL_STOP_S
    assert start_s + stop_s < TOOL_TIMEOUT_S
