"""Killed anywhere, any party, once or twice: the books cover what was said, and the study ends as if undisturbed.

What is asserted at every moment stands in `tests.ledger_watch.Watch`. At the end: every round once, and where no reply
was lost for good nothing refused and the model of an undisturbed run, bit for bit; where some were, the model hangs on
who was in which sum, and on nothing else.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.charges import Charges
from client.inbox import Inbox, Opened
from client.ledger.witness import LedgerWitness
from client.node import SiteNode
from common.identity import SIGNATURE_BYTES
from common.randomness import public_generator
from server.results import RunReport
from server.secagg import CoordinatorRound
from tests.crash_play import Lives, Stage, make_stage
from tests.kills import COORDINATOR, SITES, Kill, Moment
from tests.ledger_watch import FRESH, ROUNDS, body_of

PAIRS = 60
SAMPLE = 23
"""Every eleventh schedule is played in the quick run."""

MOST = 330
SCHEDULES = [pytest.param(n, marks=[] if n % SAMPLE == 0 else pytest.mark.slow) for n in range(MOST)]

Pattern = tuple[tuple[int, tuple[str, ...], bool], ...]


class Known:
    """The stage, all moments of an undisturbed run, and the models seen so far by who was in which sum."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        lives, report = stage.play()
        self.moments = lives.killer.moments
        self.models: dict[Pattern, bytes] = {pattern(lives, report): pinned(report)}
        self.undisturbed = pinned(report)
        self.schedules = list(schedules(self.moments))


def pinned(report: RunReport) -> bytes:
    """The model without its fresh coordinate."""
    return np.delete(report.outcome.model.weights, FRESH).tobytes()


def pattern(lives: Lives, report: RunReport) -> Pattern:
    """Who was in which sum, and whether that was applied."""
    told = lives.watch.survivors
    return tuple((one.round_number, told.get(one.round_number, ()), one.applied) for one in report.outcome.rounds)


def schedules(moments: list[Moment]) -> Iterator[tuple[Kill, ...]]:
    """Every kind of moment, once for each way to die of it; then pairs."""
    generator = public_generator(4, "crash schedules")
    for kind in sorted({moment.kind for moment in moments}):
        numbers = [number for number, moment in enumerate(moments, 1) if moment.kind == kind]
        ways = (
            [(True, True), (False, True)] if kind[0] == COORDINATOR else [(True, True), (False, True), (False, False)]
        )
        for everybody, again in ways:
            yield (Kill(int(generator.choice(numbers)), everybody, again),)
    for _ in range(PAIRS):
        first, second = (int(generator.integers(1, len(moments))), int(generator.integers(1, 200)))
        yield tuple(Kill(number, *map(bool, generator.integers(0, 2, 2))) for number in (first, second))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Known:
    return Known(make_stage(tmp_path_factory.mktemp("crash"), tiny_base))


def test_an_undisturbed_run_has_every_kind_of_moment(known: Known) -> None:
    kinds = {moment.kind for moment in known.moments}
    named = {(party, what) for party, what, _ in kinds}
    for what in (
        "charges.book",
        "charges.answer",
        "ledger commit",
        "ledger.anchor",
        "inbox.record",
        "MaskedReply sent",
    ):
        assert ("site", what) in named
    for what in ("sequences.json", "session.safetensors", "pending-sum.safetensors", "checkpoint.safetensors"):
        assert ("coordinator", what) in named
    assert {moment.party for moment in known.moments} == {COORDINATOR, *SITES}
    assert 200 <= len(known.schedules) <= MOST


@pytest.mark.parametrize("number", SCHEDULES)
def test_whoever_is_killed_whenever_the_books_cover_what_was_said(known: Known, number: int) -> None:
    if number >= len(known.schedules):
        pytest.skip("there are fewer kinds of moments")
    kills = known.schedules[number]
    lives, report = known.stage.play(kills)
    assert [summary.round_number for summary in report.outcome.rounds] == list(range(1, ROUNDS + 1))
    model = pinned(report)
    assert known.models.setdefault(pattern(lives, report), model) == model, kills
    if all(kill.everybody or kill.again for kill in kills):
        assert model == known.undisturbed, kills
        assert {name: lives.watch.charged(name) for name in SITES} == {name: [1, 2] for name in SITES}
        assert not lives.watch.codes


class PinnedSource:
    """Draws that hang on their number alone: the noise that training adds is the same in every life."""

    def uniform(self, count: int) -> np.ndarray:
        """As `common.randomness.RandomSource`."""
        return public_generator(5, "pinned source", count).uniform(2.0**-53, 1.0, count)


@pytest.mark.slow
def test_with_real_training_and_pinned_draws_a_killed_study_has_the_undisturbed_model(
    tmp_path: Path, tiny_base: Path
) -> None:
    models = []
    for kills in (
        [],
        [Kill(Moment("b", "ledger commit", "after"), nth=2)],
        [Kill(Moment("c", "Consent sent", "after"))],
    ):
        folder = tmp_path / str(len(models))
        folder.mkdir()
        stage = make_stage(folder, tiny_base)
        _, report = stage.play(kills, make_source=PinnedSource)
        models.append(report.outcome.model.weights.tobytes())
    assert models[0] == models[1] == models[2]


# --- faults ----------------------------------------------------------------------------------------------------------


def charge_after_training(monkeypatch: pytest.MonkeyPatch) -> None:
    right, right_charge = SiteNode._train, Charges.charge

    def train(self, order, half, terms):
        answer = right(self, order, half, terms)
        right_charge(self._charges, *self._charges.waiting)
        return answer

    monkeypatch.setattr(Charges, "charge", lambda self, *about: setattr(self, "waiting", about))
    monkeypatch.setattr(SiteNode, "_train", train)


def reply_before_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is on disk only when the next request comes."""
    right_keep, right_serve = Charges.keep_answer, SiteNode._serve

    def serve(self, *rest):
        late = self._charges.__dict__.pop("late", None)
        if late is not None:
            right_keep(self._charges, late)
        return right_serve(self, *rest)

    monkeypatch.setattr(Charges, "keep_answer", lambda self, answer: setattr(self, "late", answer))
    monkeypatch.setattr(SiteNode, "_serve", serve)


def ledger_commit_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LedgerWitness, "note", lambda *_: None)


def another_survivor_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked again leaves one out."""
    right = CoordinatorRound.restore

    def restore(self, survivors, signatures, total) -> None:
        right(self, survivors[1:], signatures[SIGNATURE_BYTES:], total)

    monkeypatch.setattr(CoordinatorRound, "restore", restore)
    monkeypatch.setattr(Charges, "survivors_fault", lambda *_: None)


def reply_sealed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeat gets what the first answer said, in another envelope."""
    right_open = Inbox.open

    def open_again(self, request: bytes) -> Opened:
        opened = right_open(self, request)
        if opened.kept is None:
            return opened
        return replace(opened, kept=self._sealed(opened, body_of(opened.kept), answered=0))

    monkeypatch.setattr(Inbox, "open", open_again)


PLANTED = [
    (charge_after_training, "MaskedReply", "before the ledger had the round"),
    (ledger_commit_skipped, "MaskedReply", "before the ledger had the round"),
    (reply_before_record, "MaskedReply", "fresh answers left"),
    (another_survivor_set, "Consent", "two survivor sets"),
    (reply_sealed_anew, "MaskedReply", "two answers"),
]


@pytest.mark.parametrize(("plant", "answer", "broken"), PLANTED, ids=[plant.__name__ for plant, *_ in PLANTED])
def test_a_planted_fault_is_found(
    known: Known, monkeypatch: pytest.MonkeyPatch, plant: Callable, answer: str, broken: str
) -> None:
    """Everybody dies right after one site has sent its answer to a request."""
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=broken):
        known.stage.play([Kill(Moment("a", f"{answer} sent", "after"))])
