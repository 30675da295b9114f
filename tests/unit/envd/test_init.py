"""What an order changes, with a clock of the test's own."""

import pytest

from wrennd.envd import init
from wrennd.envd.connect import RpcError
from wrennd.envd.init import Order, Settings

S = 10**9
NOON = "2026-01-01T12:00:00Z"
NOON_NS = 1767268800 * S


class ToyClock:
    """A clock that stands still until it is set."""

    def __init__(self, now_ns: int) -> None:
        self.moment_ns = now_ns

    def now_ns(self) -> int:
        return self.moment_ns

    def set_ns(self, moment_ns: int) -> None:
        self.moment_ns = moment_ns


def apply(message, settings, clock, **options):
    init.apply(Order(message, **options), settings, clock)


def near(moment_ns):
    """The clock is set to what it is by then."""
    return pytest.approx(moment_ns, abs=S, rel=0)


@pytest.mark.parametrize(
    ("off_ns", "is_set"),
    [(0, False), (-40 * 10**6, False), (-60 * 10**6, True), (4 * S, False), (6 * S, True)],
)
def test_the_clock_is_set_when_it_is_behind_or_far_ahead(off_ns, is_set):
    clock = ToyClock(NOON_NS + off_ns)
    apply({"timestamp": NOON}, Settings(), clock)
    assert (clock.moment_ns != NOON_NS + off_ns) == is_set
    if is_set:
        assert clock.moment_ns == near(NOON_NS)


def test_a_moment_that_was_overtaken_is_ignored():
    clock, settings = ToyClock(0), Settings()
    apply({"timestamp": NOON}, settings, clock)
    apply({"timestamp": "2026-01-01T11:00:00Z"}, settings, clock)
    assert clock.moment_ns == near(NOON_NS)
    clock.moment_ns = NOON_NS + 100 * S
    apply({"timestamp": NOON}, settings, clock)
    assert clock.moment_ns == NOON_NS + 100 * S


def test_what_an_order_waited_here_is_added_to_its_moment():
    clock = ToyClock(0)
    apply({"timestamp": NOON}, Settings(), clock, age_s=30)
    assert clock.moment_ns == near(NOON_NS + 30 * S)


def test_absent_fields_stay_and_empty_ones_reset():
    settings, clock = Settings(), ToyClock(0)
    apply({"envVars": {"A": "1"}, "defaultWorkdir": "/x"}, settings, clock)
    apply({}, settings, clock)
    assert (settings.env, settings.workdir) == ({"A": "1"}, "/x")
    apply({"env_vars": {}, "default_workdir": ""}, settings, clock)
    assert (settings.env, settings.workdir) == ({}, "")


def test_nothing_is_applied_of_a_bad_order():
    settings, clock = Settings(), ToyClock(0)
    with pytest.raises(RpcError):
        apply({"timestamp": NOON, "envVars": {"": "x"}}, settings, clock)
    with pytest.raises(RpcError):
        apply({"timestamp": NOON, "defaultUser": "nobody-of-that-name"}, settings, clock)
    assert clock.moment_ns == 0


def restored(moment, **fields):
    return {
        "restored": True,
        "accessToken": "t",
        "sandboxId": "a" * 20,
        "timestamp": moment,
        "entropy": "A" * 24,
    } | fields


def test_a_restored_guest_s_clock_is_set_exactly_and_anew():
    """The mixing in of entropy needs root's rights, so only the clock's part is called here."""
    clock, settings = ToyClock(NOON_NS + 100 * 10**6), Settings()
    settings.last_moment_ns = NOON_NS + 3600 * S
    order = Order(restored(NOON))
    init.adjust(clock, settings, order)
    assert clock.moment_ns == NOON_NS + 100 * 10**6
    settings.last_moment_ns = 0
    init.adjust(clock, settings, order)
    assert clock.moment_ns == pytest.approx(NOON_NS, abs=50 * 10**6, rel=0)
    init.adjust(clock, settings, Order(restored("2026-01-01T11:59:00Z")))
    assert clock.moment_ns >= NOON_NS


def test_small_differences_are_left_alone_after_a_restore_too():
    clock = ToyClock(NOON_NS + 1)
    init.adjust(clock, Settings(), Order(restored(NOON)))
    assert clock.moment_ns == NOON_NS + 1


@pytest.mark.parametrize("name", ["accessToken", "sandboxId", "timestamp", "entropy"])
def test_half_a_restore_is_none(name):
    message = restored(NOON)
    Order(message)
    with pytest.raises(ValueError, match="restored guest needs"):
        Order(message | {name: None})


def test_the_sandbox_s_id_is_in_every_environment():
    settings = Settings()
    assert settings.env == {}
    settings.sandbox_id = "a" * 20
    settings.own_env = {"A": "1", "WRENN_SANDBOX_ID": "b" * 20}
    assert settings.env == {"WRENN_SANDBOX_ID": "a" * 20, "A": "1"}
