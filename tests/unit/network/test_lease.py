"""Who holds which number, in a directory of the test's own."""

import os
import threading
import time
from pathlib import Path

import pytest

from wrennd.core.deadline import Deadline
from wrennd.core.errors import DeadlineExceeded, NoCapacity
from wrennd.network.lease import Lease, Leases
from wrennd.network.slot import FORGOTTEN_S, Network, is_forgotten


def take(leases: Leases, sandbox: str, *, installation: str = "aaaaaa", slots: int = 4) -> Lease:
    with leases.lock(Deadline.after(5)):
        return leases.take(installation, sandbox, slots=slots, is_free=lambda _: True)


def release(leases: Leases, sandbox: str, *, installation: str = "aaaaaa") -> None:
    with leases.lock(Deadline.after(5)):
        leases.release(installation, sandbox)


def test_numbers_go_round(tmp_path: Path) -> None:
    """The number that was given up last is given out last."""
    leases = Leases(tmp_path)
    given = []
    for turn in range(6):
        given.append(take(leases, f"s{turn}").index)
        release(leases, f"s{turn}")
    assert given == [0, 1, 2, 3, 0, 1]


def test_a_held_number_is_passed_over(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    assert [take(leases, f"s{turn}").index for turn in range(3)] == [0, 1, 2]
    release(leases, "s1")
    assert take(leases, "s3").index == 3
    assert take(leases, "s4").index == 1


def test_two_installations_never_share(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    one = take(leases, "same", installation="aaaaaa")
    other = take(leases, "same", installation="bbbbbb")
    assert one.index != other.index
    assert leases.leased("aaaaaa") == [one]
    release(leases, "same", installation="aaaaaa")
    assert leases.all() == [other]


def test_releasing_twice_or_a_stranger_is_nothing(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    kept = take(leases, "kept")
    release(leases, "unknown")
    release(leases, "kept", installation="bbbbbb")
    assert leases.all() == [kept]


def test_when_all_are_held(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    take(leases, "s0", slots=1)
    with pytest.raises(NoCapacity, match=r"1 are held, .* 0 are in use") as caught:
        take(leases, "s1", slots=1)
    assert "WRENN_NETWORK_POOL" in caught.value.hint


def test_forgotten_ones_are_given_up_when_all_are_held(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    asked: list[str] = []

    def is_forgotten(lease: Lease) -> bool:
        asked.append(lease.sandbox_id)
        return lease.sandbox_id in ("s1", "s2")

    def again(sandbox: str) -> Lease:
        with leases.lock(Deadline.after(5)):
            return leases.take(
                "aaaaaa", sandbox, slots=4, is_free=lambda _: True, is_forgotten=is_forgotten
            )

    assert [again(f"s{turn}").index for turn in range(4)] == [0, 1, 2, 3]
    assert asked == []
    assert again("s4").index == 1
    assert sorted(asked) == ["s0", "s1", "s2", "s3"]
    assert [lease.sandbox_id for lease in leases.all()] == ["s0", "s4", "s3"]
    assert again("s5").index == 2
    with pytest.raises(NoCapacity):
        again("s6")


def test_numbers_that_are_not_free_are_passed_over(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    with leases.lock(Deadline.after(5)):
        found = leases.take("aaaaaa", "s", slots=8, is_free=lambda index: index >= 5)
        assert found.index == 5
        with pytest.raises(NoCapacity, match="the addresses of 7 are in use"):
            leases.take("aaaaaa", "t", slots=8, is_free=lambda _: False)


def test_a_lease_that_cannot_be_read_is_held_by_nobody_known(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    take(leases, "s0")
    (tmp_path / "slots" / "1").write_text("{")
    (tmp_path / "slots" / "2").write_text('["a list"]')
    assert take(leases, "s1").index == 3
    assert [lease.index for lease in leases.leased("aaaaaa")] == [0, 3]


def test_what_a_dead_writer_left_goes_with_the_next_release(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    take(leases, "s0")
    (tmp_path / "slots" / "3.tmp").write_text("{")
    assert [lease.index for lease in leases.all()] == [0]
    release(leases, "s0")
    assert list((tmp_path / "slots").iterdir()) == []


def test_there_is_nothing_before_the_first(tmp_path: Path) -> None:
    assert Leases(tmp_path / "absent").all() == []


def test_the_lock_has_a_deadline(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    with leases.lock(Deadline.after(5)), pytest.raises(DeadlineExceeded, match=r"slots\.lock"):
        leases.lock(Deadline.after(0)).__enter__()


def test_many_at_once_get_different_numbers(tmp_path: Path) -> None:
    taken: list[int] = []

    def work(name: str) -> None:
        for turn in range(5):
            taken.append(take(Leases(tmp_path), f"{name}-{turn}", slots=64).index)

    threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(30))


def test_a_slot_is_forgotten_when_there_is_nothing_else_of_it_for_long(tmp_path: Path) -> None:
    network = Network(installation="aaaaaa", run_root=tmp_path)
    lease = take(network.leases, "s" * 20)
    assert not is_forgotten(network, lease)
    long_ago = time.time() - 2 * FORGOTTEN_S
    os.utime(tmp_path / "slots" / str(lease.index), (long_ago, long_ago))
    assert is_forgotten(network, lease)
    (tmp_path / lease.installation / lease.sandbox_id).mkdir(parents=True)
    assert not is_forgotten(network, lease)
