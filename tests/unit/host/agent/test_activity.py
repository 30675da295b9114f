"""When a sandbox was used, and that it is in use."""

from wrennd.host.agent.activity import Activity


class Clock:
    """Both: of 1970, and one that nobody sets."""

    ms = 1000
    corrected_ms = 0

    def __call__(self) -> float:
        return self.ms / 1000

    def wall_ms(self) -> int:
        return self.ms + self.corrected_ms


def test_what_was_never_used_counts_from_the_beginning():
    clock = Clock()
    activity = Activity(clock, clock.wall_ms)
    clock.ms = 5000
    assert activity.last_ms("a") == 1000
    activity.touch("a")
    clock.ms = 9000
    assert activity.last_ms("a") == 5000
    activity.forget("a")
    assert activity.last_ms("a") == 1000


def test_a_use_lasts_until_its_last_user_is_done():
    clock = Clock()
    activity = Activity(clock, clock.wall_ms)
    with activity.using("a"):
        with activity.using("a"):
            clock.ms = 2000
        clock.ms = 3000
        assert activity.last_ms("a") == 3000
    clock.ms = 4000
    assert activity.last_ms("a") == 3000


def test_a_host_whose_time_is_corrected_is_not_idle():
    clock = Clock()
    activity = Activity(clock, clock.wall_ms)
    activity.touch("a")
    clock.ms += 1000
    clock.corrected_ms = 3600_000
    assert clock.wall_ms() - activity.last_ms("a") == 1000
