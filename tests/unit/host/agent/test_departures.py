"""What ended by itself is told for a day, and outlives the agent."""

from wrennd.host.agent.departures import KEPT_MS, Departures


class Clock:
    ms = KEPT_MS * 10

    def __call__(self) -> int:
        return self.ms


def told(departures, present=()):
    return [(one.id, one.cause) for one in departures.all(present)]


def test_it_is_told_when_it_is_gone_and_by_the_next_agent(tmp_path):
    path = tmp_path / "departures.json"
    departures = Departures(path)
    departures.add("a", "expiry")
    assert told(departures, {"a"}) == []
    assert told(departures) == [("a", "expiry")]
    assert told(Departures(path)) == [("a", "expiry")]
    departures.forget("a")
    assert told(departures) == told(Departures(path)) == []


def test_it_is_told_for_a_day(tmp_path):
    clock = Clock()
    departures = Departures(tmp_path / "departures.json", clock)
    departures.add("a", "expiry")
    clock.ms += KEPT_MS
    assert told(departures) == []
    departures.add("b", "reclaim")
    assert '"a"' not in (tmp_path / "departures.json").read_text()


def test_only_the_newest_are_kept(tmp_path):
    departures = Departures(tmp_path / "departures.json", most=2)
    for sandbox_id in "abc":
        departures.add(sandbox_id, "expiry")
    assert told(departures) == [("b", "expiry"), ("c", "expiry")]


def test_a_file_that_is_broken_says_nothing(tmp_path):
    path = tmp_path / "departures.json"
    for content in ("", "{", '[{"id": "a"}]', "[1]"):
        path.write_text(content)
        assert told(Departures(path)) == []
