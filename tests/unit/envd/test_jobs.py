"""Work in slices, on a loop of its own."""

from wrennd.envd.jobs import SLICE_S, WAIT, Job
from wrennd.envd.loop import Loop, monotonic


def busy(log, slices):
    """Steps that take as long as several slices."""
    until = monotonic() + slices * SLICE_S
    while monotonic() < until:
        yield
    log.append("done")


def test_short_work_is_done_on_return():
    log = []
    Job(Loop(), busy(log, 0))
    assert log == ["done"]


def test_others_run_between_the_slices():
    loop, log = Loop(), []

    def steps():
        """Goes on until the other was served, or it is clear that it never will be."""
        until = monotonic() + 10
        while not log and monotonic() < until:
            yield
        log.append("done")
        loop.stop()

    Job(loop, steps())
    loop.soon(lambda: log.append("other"))
    loop.run()
    loop.close()
    assert log == ["other", "done"]


def test_a_waiting_job_stands_still():
    log = []

    def steps():
        log.append(1)
        yield WAIT
        log.append(2)

    job = Job(Loop(), steps())
    assert log == [1]
    job.resume()
    assert log == [1, 2]
    job.resume()


def test_a_closed_job_lets_go():
    log = []

    def steps():
        try:
            yield WAIT
        finally:
            log.append("let go")

    job = Job(Loop(), steps())
    job.close()
    job.close()
    job.resume()
    assert log == ["let go"]
