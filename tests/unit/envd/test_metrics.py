"""What /proc says, parsed."""

from wrennd.envd.metrics import Metrics, parse_meminfo, parse_stat

STAT = "cpu  10 5 15 60 10 1 2 0 7 0\ncpu0 1 2 3\n"


def test_meminfo():
    text = "MemTotal:  1024 kB\nHugePages_Total:  0\nbroken\nMemAvailable: 12 kB\n"
    assert parse_meminfo(text) == {"MemTotal": 1 << 20, "HugePages_Total": 0, "MemAvailable": 12288}


def test_stat_counts_guests_once():
    assert parse_stat(STAT) == (33, 103)


def test_the_share_is_between_two_looks():
    metrics = Metrics()
    assert metrics._cpu_percent("cpu 25 0 0 75 0 0 0 0") == 25.0
    assert metrics._cpu_percent("cpu 26 0 0 75 0 0 0 0") == 25.0
    assert metrics._cpu_percent("cpu 75 0 0 125 0 0 0 0") == 50.0


def test_a_sample_of_this_machine():
    sample = Metrics().sample()
    assert sample["mem_total"] > sample["mem_used"] > 0
