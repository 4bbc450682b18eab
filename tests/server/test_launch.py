import os
import shutil

import pytest

import server.launch
from common.envelope import open_envelope
from common.errors import (
    CloisterError,
    ConfigError,
    DataError,
    IntegrityError,
    Problem,
    TooFewSitesError,
    TryAgainError,
    UsageError,
)
from common.file_lock import locked
from common.study_messages import RunOver
from common.wire import encode
from server.checkpoint import CHECKPOINT_NAME
from server.launch import launch
from server.pacing import Patience
from server.progress import PhaseProgress, read_progress
from server.run_files import LOCK_NAME, SIGNED_PLAN_NAME
from tests.federation_play import make_federation


@pytest.fixture(scope="module")
def kept(tmp_path_factory, tiny_base):
    folder = tmp_path_factory.mktemp("play")
    federation = make_federation(folder, tiny_base)
    return federation, federation.sign(approved=False)


@pytest.fixture
def home(kept):
    federation, signed = kept
    yield federation.coordinator
    shutil.rmtree(federation.coordinator.run("tiny", signed.digest), ignore_errors=True)


@pytest.fixture
def signed(kept):
    return kept[1]


class Network:
    def __init__(self):
        self.patience = Patience(1.0, 1, 1.0)
        self.sent = []

    def exchange(self, orders):
        self.sent.append(dict(orders))
        return iter(())


@pytest.fixture
def conducted(monkeypatch):
    """What `conduct` was given; a test says what it does."""

    class Conducted(list):
        error = None

    seen = Conducted()

    def conduct(parts):
        seen.append(parts)
        list(parts.transport.exchange({"a": encode(RunOver(parts.signed.digest, "finished"))}))
        if seen.error is not None:
            raise seen.error
        return "report"

    monkeypatch.setattr(server.launch, "conduct", conduct)
    return seen


def end_of(home, signed):
    return read_progress(home.run("tiny", signed.digest))[0]


def test_a_run_gets_its_plan_folder_sites_and_a_sealed_paced_transport(home, signed, conducted):
    network, opened = Network(), []

    def open_network(sites, waiting):
        opened.append(([site.name for site in sites], waiting))
        return network

    assert launch(home, signed.digest[:12], open_network, wait_for_all=False) == "report"
    (parts,) = conducted
    assert (parts.signed, parts.folder, parts.resume, parts.wait_for_all) == (
        signed,
        home.run("tiny", signed.digest),
        False,
        False,
    )
    assert parts.enough == 3
    assert opened == [(["a", "b", "c", "d"], parts.config.waiting)]
    assert (parts.folder / SIGNED_PLAN_NAME).is_file()
    envelope = open_envelope(network.sent[0]["a"]).checked(signed.coordinator)
    assert (envelope.federation, envelope.recipient, envelope.plan_digest) == (signed.federation, "a", signed.digest)
    assert network.patience.seconds == parts.config.waiting.exchange_seconds


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            DataError("2 problems", (Problem("a.csv", "is bad", hint="mend"), Problem("b", "is odd", "7", "mend"))),
            PhaseProgress("failed", "2 problems: a.csv: is bad; b: is odd (found 7)", "mend", 3),
        ),
        (
            ConfigError("7 problems", tuple(Problem(str(number), "is bad") for number in range(7)), "look"),
            PhaseProgress(
                "failed", f"7 problems: {'; '.join(f'{n}: is bad' for n in range(5))}; and 2 more", "look", 3
            ),
        ),
        (TooFewSitesError("too few", hint="wait"), PhaseProgress("failed", "too few", "wait", 16)),
        (OSError(28, "No space left on device"), "a file could not be read or written: No space left on device"),
        (OSError("odd"), "a file could not be read or written: OSError"),
        (ValueError("a record's text"), "the run ended with an error that nobody foresaw (ValueError)"),
        (MemoryError(), "the run ended with an error that nobody foresaw (MemoryError)"),
    ],
    ids=["problems", "many", "ours", "disk", "odd", "unforeseen", "memory"],
)
def test_whatever_error_ends_a_run_is_told_and_comes_out(home, signed, conducted, error, told):
    conducted.error = error
    with pytest.raises(type(error)):
        launch(home, signed.digest, lambda *_: Network())
    (event,) = end_of(home, signed)
    assert told in (event, event.sentence)
    assert (event.phase, event.exit_code) == ("failed", error.exit_code if isinstance(error, CloisterError) else 1)


def test_a_full_disk_that_takes_no_word_does_not_hide_the_error(home, signed, conducted, monkeypatch):
    conducted.error = TooFewSitesError("too few")

    def full(*_):
        raise OSError(28, "full")

    monkeypatch.setattr(server.launch.Progress, "tell", full)
    with pytest.raises(TooFewSitesError):
        launch(home, signed.digest, lambda *_: Network())


def test_a_stop_is_told_by_who_asked_for_it(home, signed, conducted):
    conducted.error = SystemExit(0)
    with pytest.raises(SystemExit):
        launch(home, signed.digest, lambda *_: Network())
    assert end_of(home, signed) == []


def test_two_do_not_conduct_one_run_and_the_second_leaves_its_story_alone(home, signed, conducted):
    folder = home.run("tiny", signed.digest)
    folder.mkdir()
    handle = os.open(folder / LOCK_NAME, os.O_CREAT | os.O_RDWR)
    with locked(handle, 0.0), pytest.raises(TryAgainError):
        launch(home, signed.digest, lambda *_: Network())
    os.close(handle)
    assert (conducted, end_of(home, signed)) == ([], [])
    assert launch(home, signed.digest, lambda *_: Network()) == "report"


def test_a_plan_runs_once_and_is_resumed_by_that_name(home, signed, conducted):
    folder = home.run("tiny", signed.digest)
    folder.mkdir()
    (folder / CHECKPOINT_NAME).write_bytes(b"")
    with pytest.raises(UsageError, match="already holds finished rounds"):
        launch(home, signed.digest, lambda *_: Network())
    launch(home, signed.digest, lambda *_: Network(), resume=True)
    assert [parts.resume for parts in conducted] == [True]


@pytest.mark.parametrize("digest", ["0" * 64, "", "*", "../x", "zz"])
def test_an_unknown_plan_is_a_usage_error(home, digest):
    with pytest.raises(UsageError, match="no signed plan"):
        launch(home, digest, lambda *_: Network())


def test_another_plans_folder_of_that_name_is_refused(home, signed, conducted, kept):
    other = kept[0].sign({**_draft(), "rounds": 2}, approved=False)
    folder = home.run("tiny", signed.digest)
    folder.mkdir()
    shutil.copy(home.plan(other.digest), folder / SIGNED_PLAN_NAME)
    with pytest.raises(IntegrityError, match="belongs to another plan"):
        launch(home, signed.digest, lambda *_: Network())
    home.plan(other.digest).unlink()


def _draft():
    from tests.federation_play import DRAFT

    return dict(DRAFT)


def test_a_site_that_was_withdrawn_is_told_in_the_runs_folder(home, signed, conducted):
    taken = home.site("c").read_bytes()
    home.site("c").unlink()
    try:
        with pytest.raises(ConfigError, match="site c of the plan's roster is not enrolled"):
            launch(home, signed.digest, lambda *_: Network())
    finally:
        home.site("c").write_bytes(taken)
    assert [event.exit_code for event in end_of(home, signed)] == [3]
    assert conducted == []
