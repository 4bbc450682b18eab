"""Hospitals rebuilt from a run folder: which process serves them must not matter."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import simulations.run
from common.errors import IntegrityError
from common.messages import Refusal, RoundOrder, RoundReply
from common.wire import decode, encode
from simulations.federation import Setting, _begin_books
from simulations.rebuilt_sites import RebuiltSites
from simulations.run import start_run
from simulations.run_folder import alone, read_plan
from tests.tiny_base import make_tiny_base
from tests.tiny_scenario import tiny_scenario

SURE = ("plan.privacy.noise_multiplier=0.0", "plan.privacy.sampling_rate=1.0")
SITES = ("hospital-1", "hospital-2")
NOTHING = np.zeros(0, dtype=np.float32)


class StoppedError(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture
def begun(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run whose plan and books are there, and whose first round is not."""
    return begin(tmp_path, tiny_base, monkeypatch)


def begin(folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def kill(setting: Setting, *_: object, **__: object) -> None:
        _begin_books(setting)
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(simulations.run, "federate", kill)
        with pytest.raises(StoppedError):
            start_run(tiny_scenario(folder, base, *SURE), Console(file=io.StringIO()))
    (found,) = (folder / "runs").iterdir()
    return found


def order(folder: Path, round_number: int, dimension: int = 98) -> bytes:
    return encode(RoundOrder(read_plan(folder).digest, round_number, np.zeros(dimension, np.float32), NOTHING))


def dimension_of(folder: Path) -> int:
    return RebuiltSites(folder)._model.spec.dimension


def reply(frame: bytes) -> RoundReply:
    message = decode(frame, RoundReply, Refusal)
    assert isinstance(message, RoundReply), message
    return message


def test_two_processes_in_turn_answer_as_one(begun: Path, tmp_path: Path) -> None:
    one, other = RebuiltSites(begun), RebuiltSites(begun)
    size = dimension_of(begun)
    first, second = order(begun, 1, size), order(begun, 2, size)
    answers = [one.answer("hospital-1", first), other.answer("hospital-1", second)]
    assert [reply(answer.frame).round_number for answer in answers] == [1, 2]
    assert all(answer.seconds > 0 for answer in answers)
    # The first process has a book of round 1 in no memory: the round is past for it, too.
    late = decode(one.answer("hospital-1", first).frame, RoundReply, Refusal)
    assert isinstance(late, Refusal)
    assert late.code == "unexpected-round"


def test_the_same_order_in_another_process_gets_the_very_same_answer_and_trains_nobody(begun: Path) -> None:
    asked = order(begun, 1, dimension_of(begun))
    first, again = (RebuiltSites(begun).answer("hospital-2", asked) for _ in range(2))
    assert again.frame == first.frame
    assert again.seconds == 0


def test_a_request_waits_for_the_process_that_serves_its_site(begun: Path) -> None:
    """A worker that its run has given up may still write: two at once would answer one round twice."""
    import threading

    sites, asked, done = RebuiltSites(begun), order(begun, 1, dimension_of(begun)), threading.Event()
    with alone(begun / "sites" / "hospital-1"):
        thread = threading.Thread(target=lambda: (sites.answer("hospital-1", asked), done.set()))
        thread.start()
        assert not done.wait(0.3)
    thread.join()
    assert done.is_set()


def test_a_lost_book_is_not_begun_anew(begun: Path) -> None:
    (begun / "sites" / "hospital-1" / "charges.book").unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        RebuiltSites(begun).answer("hospital-1", order(begun, 1))


@pytest.mark.parametrize("name", ["hospital-3", "../hospital-1", ""])
def test_a_site_that_the_run_does_not_have_is_refused(begun: Path, name: str) -> None:
    with pytest.raises(IntegrityError, match="has no site"):
        RebuiltSites(begun).answer(name, b"")


def test_another_base_than_the_plans_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_tiny_base(tmp_path / "base")
    folder = begin(tmp_path, base, monkeypatch)
    config = json.loads((base / "config.json").read_bytes())
    (base / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-11}))
    with pytest.raises(IntegrityError, match="the base model found here is not the one of the plan"):
        RebuiltSites(folder)
