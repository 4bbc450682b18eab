import pytest

from common.errors import TransportError
from server.following import RunLostError, Signs, follow
from server.progress import PhaseProgress, Progress, RoundProgress
from server.run_files import LOCK_NAME
from server.runs import Run
from tests.held_lock import held

FINISHED = PhaseProgress("finished")


@pytest.fixture
def run(tmp_path):
    signed = type("Signed", (), {"digest": "ab" * 32})
    return Run(tmp_path, signed)


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when somebody waits."""

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    ticking = Clock()

    def sleep(seconds):
        ticking.now += seconds

    monkeypatch.setattr("server.following.time.sleep", sleep)
    return ticking


def signs(status="running", *, service=True):
    def said():
        if status is None:
            raise TransportError("unreachable")
        return status

    return Signs(lambda: service, said)


def test_events_come_from_the_start_on_and_end_with_the_runs_end(run, clock):
    progress = Progress(run.folder)
    progress.tell(PhaseProgress("failed"))
    start = (run.folder / "progress.jsonl").stat().st_size
    told = [PhaseProgress("training"), RoundProgress(1, 3, 0.5, 1.0), FINISHED]
    for event in told:
        progress.tell(event)
    assert list(follow(run, start, signs(), clock)) == told


def test_a_process_that_died_without_a_word_is_an_error_with_the_superlinks_reason(run, clock):
    Progress(run.folder).tell(PhaseProgress("training"))
    found = follow(run, 0, signs("finished:failed: out of memory"), clock)
    assert next(found).phase == "training"
    with pytest.raises(RunLostError, match="out of memory") as caught:
        list(found)
    assert caught.value.exit_code == 1
    assert "--resume" in caught.value.hint


def test_an_end_that_was_told_wins_over_a_process_that_is_gone(run, clock):
    Progress(run.folder).tell(FINISHED)
    assert list(follow(run, 0, signs("finished:completed"), clock)) == [FINISHED]


def test_the_service_gone_takes_the_run_along(run, clock):
    with pytest.raises(RunLostError, match="service has ended"):
        list(follow(run, 0, signs(service=False), clock))


@pytest.mark.parametrize("status", ["running", None])
def test_a_run_that_nobody_conducts_any_more_is_given_up_after_a_while(run, clock, status):
    Progress(run.folder).tell(PhaseProgress("training"))
    with pytest.raises(RunLostError, match="nothing has conducted the run"):
        list(follow(run, 0, signs(status), clock))
    assert 5 < clock.now < 10


def test_a_run_that_is_starting_gets_its_time(run, clock):
    with pytest.raises(RunLostError, match="not started the run"):
        list(follow(run, 0, signs(None), clock))
    assert 180 < clock.now < 185


def test_a_long_round_is_no_death(run, clock, monkeypatch):
    def sleep(seconds):
        clock.now += 30 * seconds
        if clock.now > 3600:
            Progress(run.folder).tell(FINISHED)

    monkeypatch.setattr("server.following.time.sleep", sleep)
    with held(run.folder / LOCK_NAME):
        assert list(follow(run, 0, signs("finished:failed"), clock))[-1] == FINISHED
