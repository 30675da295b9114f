import json
import time

import pytest

from wrennd.qemu_vmm.faults import Fault
from wrennd.qemu_vmm.metrics import PERIOD_S, Recorder
from wrennd.qemu_vmm.resources import Metrics


@pytest.fixture
def recorder():
    made = Recorder(time.monotonic())
    yield made
    made.close()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_counts_are_those_since_the_line_before(recorder, tmp_path):
    path = tmp_path / "metrics"
    recorder.open(Metrics(metrics_path=str(path)))
    recorder.count("uart", "write_count", 5)
    recorder.took("pause_vm", 0.25)
    recorder.write()
    recorder.write()
    first, second = lines(path)
    assert (first["uart"]["write_count"], second["uart"]["write_count"]) == (5, 0)
    assert first["latencies_us"]["pause_vm"] == second["latencies_us"]["pause_vm"] == 250_000


def test_counts_survive_a_line_that_could_not_be_written(recorder):
    recorder.open(Metrics(metrics_path="/dev/full"))
    recorder.count("uart", "write_count", 5)
    recorder.write()
    assert recorder._counts["uart", "write_count"] == 5
    assert recorder._counts["logger", "missed_metrics_count"] == 1


def test_without_a_file_nothing_happens(recorder):
    recorder.write()
    assert 0 < recorder.write_if_due() <= PERIOD_S


def test_nothing_is_due_before_the_guest_starts_and_then_it_is_at_once(recorder, tmp_path):
    path = tmp_path / "metrics"
    recorder.open(Metrics(metrics_path=str(path)))
    assert recorder.write_if_due() == PERIOD_S
    assert lines(path) == []
    recorder.begin()
    assert 0 < recorder.write_if_due() <= PERIOD_S
    assert len(lines(path)) == 1


@pytest.mark.parametrize("path", ["/nothing/there", "a\0b", "/proc"])
def test_files_that_can_not_be_opened(recorder, path):
    with pytest.raises(Fault, match=r"^Metrics error: Cannot initialize the metrics system"):
        recorder.open(Metrics(metrics_path=path))
