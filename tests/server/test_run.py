from dataclasses import replace

import numpy as np
import pytest

import server.sealed_arrays
from common.errors import (
    CloisterError,
    ConfigError,
    IntegrityError,
    TooFewSitesError,
    UsageError,
)
from common.messages import RoundOrder, RoundReply
from common.wire import decode, encode
from server.aggregation.fedavg import FedAvg
from server.checkpoint import load_checkpoint
from server.run import RunSetup, run
from server.state import Evaluation

SITES = ("a", "b", "c")
GROUPS = {"adapter": slice(0, 2), "head": slice(2, 3)}


class FormulaTransport:
    """Every site answers by its formula, but for rounds in which `silent` names it."""

    def __init__(self, answer, silent=None, event=lambda name: None):
        self.answer, self.silent, self.event = answer, silent or {}, event
        self.orders = []

    def exchange(self, orders):
        self.event("before exchange")
        for site, request in orders.items():
            number = decode(request, RoundOrder).round_number
            self.orders.append((number, site, request))
            if site not in self.silent.get(number, ()):
                yield site, self.answer(site, request)
            self.event("after an answer")
        self.event("after exchange")


class DistanceEvaluator:
    """Loss is the squared distance to a target; keeps every model that it was asked to judge."""

    def __init__(self, target, event=lambda name: None):
        self.target, self.event, self.seen = np.array(target), event, []

    def evaluate(self, weights, basis):
        self.event("evaluate")
        self.seen.append(weights.tolist())
        distance = float(((weights - self.target) ** 2).sum())
        return Evaluation(distance, {"basis": float(basis.sum())})


def moving(*updates):
    """Sites that all send the same update: `updates[round - 1]`."""

    def answer(site, request):
        order = decode(request, RoundOrder)
        update = np.array(updates[order.round_number - 1], dtype=np.float32)
        return encode(RoundReply(order.plan_digest, order.round_number, site, update))

    return answer


@pytest.fixture
def setup_for(start, formula_answer):
    def build(plan, answer=formula_answer, silent=None, **changes):
        return RunSetup(plan, SITES, FormulaTransport(answer, silent), start, GROUPS, **changes)

    return build


# --- rounds ----------------------------------------------------------------------------------------------------------


def test_a_run_is_federated_averaging_by_a_plain_loop(tmp_path, make_plan, setup_for):
    outcome = run(setup_for(make_plan()), tmp_path)
    weights = np.zeros(3)
    for number in range(1, 5):
        pulls = [0.25 * (pull - weights.astype(np.float32)) / number for pull in (1.0, -2.0, 4.0)]
        weights = weights + np.mean(pulls, axis=0)
    np.testing.assert_allclose(outcome.model.weights, weights, rtol=1e-6)
    assert (outcome.chosen, outcome.chosen_round, outcome.stopped_early) == ("last", 4, False)
    assert [summary.round_number for summary in outcome.rounds] == [1, 2, 3, 4]
    assert outcome.validation is None


def test_the_observer_is_told_after_the_checkpoint(tmp_path, make_plan, setup_for):
    plan, told = make_plan(), []

    def observer(summary):
        saved = load_checkpoint(tmp_path, plan.digest)
        told.append((summary.round_number, saved.round_number, saved.history[-1] == summary))

    run(setup_for(plan, observer=observer), tmp_path)
    assert told == [(number, number, True) for number in (1, 2, 3, 4)]


def test_moments_live_on_from_round_to_round(tmp_path, make_plan, setup_for):
    plan = make_plan(rounds=3, server={"learning_rate": 0.5, "momentum": 0.5})
    outcome = run(setup_for(plan, moving([4, 0, 1], [0, 0, 1], [0, 0, 1])), tmp_path)
    rule, weights, moments = FedAvg(0.5, 0.5), np.zeros(3), {"momentum": np.zeros(3)}
    for update in ([4.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]):
        weights, moments = rule.apply(weights, 3 * np.array(update), 3, moments)
    assert outcome.model.weights.tolist() == weights.tolist() == [3.5, 0.0, 2.125]


def test_a_lost_round_changes_nothing_and_is_not_evaluated(tmp_path, make_plan, setup_for):
    silent = {2: ("a", "b")}
    outcome = run(setup_for(make_plan(), silent=silent, evaluator=DistanceEvaluator([1, 1, 1])), tmp_path)
    assert [summary.applied for summary in outcome.rounds] == [True, False, True, True]
    assert [summary.validation is None for summary in outcome.rounds] == [False, True, False, False]
    assert outcome.rounds[1].survivors == 1


# --- refresh ---------------------------------------------------------------------------------------------------------


def test_factors_are_refreshed_every_so_many_rounds_but_not_after_the_last(tmp_path, make_plan, setup_for):
    calls = []

    def refresh(weights, basis):
        calls.append(weights.copy())
        return weights * 2, np.full(2, len(calls))

    plan = make_plan(rounds=4, adapter={"svd_refresh_rounds": 2})
    setup = setup_for(plan, moving(*[[1, 1, 1]] * 4), refresh=refresh, evaluator=DistanceEvaluator([0, 0, 0]))
    outcome = run(setup, tmp_path)
    assert [call.tolist() for call in calls] == [[2.0, 2.0, 2.0]]
    assert outcome.model.weights.tolist() == [6.0, 6.0, 6.0]
    assert outcome.model.basis.tolist() == [1.0, 1.0]
    assert outcome.model.basis.dtype == np.float32
    sent = {number: decode(request, RoundOrder).basis.tolist() for number, _, request in setup.transport.orders}
    assert sent == {1: [], 2: [], 3: [1.0, 1.0], 4: [1.0, 1.0]}
    assert [summary.validation.metrics["basis"] for summary in outcome.rounds] == [0.0, 2.0, 2.0, 2.0]


def test_best_keeps_the_factors_it_was_judged_with(tmp_path, make_plan, setup_for):
    plan = make_plan(rounds=3, adapter={"svd_refresh_rounds": 1}, stopping={"patience_rounds": 9})
    setup = setup_for(
        plan,
        moving([1, 1, 1], [1, 1, 1], [5, 5, 5]),
        refresh=lambda weights, basis: (weights, np.full(1, basis.sum() + 1)),
        evaluator=DistanceEvaluator([2, 2, 2]),
    )
    outcome = run(setup, tmp_path)
    assert (outcome.chosen, outcome.chosen_round, outcome.model.basis.tolist()) == ("best", 2, [2.0])


# --- stopping and choosing -------------------------------------------------------------------------------------------


def test_patience_stops_the_run_and_the_best_model_is_the_result(tmp_path, make_plan, setup_for):
    plan = make_plan(rounds=9, stopping={"patience_rounds": 2})
    setup = setup_for(plan, moving(*[[1, 1, 1]] * 9), evaluator=DistanceEvaluator([3, 3, 3]))
    outcome = run(setup, tmp_path)
    assert [summary.validation.loss for summary in outcome.rounds] == [12.0, 3.0, 0.0, 3.0, 12.0]
    assert (outcome.chosen, outcome.chosen_round, outcome.stopped_early) == ("best", 3, True)
    assert outcome.model.weights.tolist() == [3.0, 3.0, 3.0]
    assert outcome.validation == outcome.rounds[2].validation


def test_a_long_run_is_judged_now_and_then_and_after_its_last_round(tmp_path, make_plan, setup_for):
    plan, evaluator = make_plan(rounds=8, stopping={"judge_rounds": 3}), DistanceEvaluator([0, 0, 0])
    outcome = run(setup_for(plan, moving(*[[1, 1, 1]] * 8), evaluator=evaluator), tmp_path)
    assert evaluator.seen == [[3.0] * 3, [6.0] * 3, [8.0] * 3]
    judged = [summary.round_number for summary in outcome.rounds if summary.validation is not None]
    assert judged == [3, 6, 8]
    assert (outcome.chosen_round, outcome.validation) == (8, outcome.rounds[7].validation)


def test_the_best_is_one_that_was_judged_and_patience_counts_those(tmp_path, make_plan, setup_for):
    plan = make_plan(rounds=20, stopping={"judge_rounds": 3, "patience_rounds": 2})
    setup = setup_for(plan, moving(*[[1, 1, 1]] * 20), evaluator=DistanceEvaluator([5, 5, 5]))
    outcome = run(setup, tmp_path)
    # Round 5 would be the best of all; of rounds 3, 6, 9 and 12 the losses are 12, 3, 48 and 147.
    assert (outcome.chosen, outcome.chosen_round, len(outcome.rounds)) == ("best", 6, 12)
    assert outcome.model.weights.tolist() == [6.0] * 3


def test_a_last_model_that_was_not_judged_is_judged_at_the_end(tmp_path, make_plan, setup_for):
    plan, evaluator = make_plan(stopping={"judge_rounds": 3}), DistanceEvaluator([0, 0, 0])
    setup = setup_for(plan, moving(*[[1, 1, 1]] * 4), dict.fromkeys((3, 4), SITES), evaluator=evaluator)
    outcome = run(setup, tmp_path)
    assert [summary.validation for summary in outcome.rounds] == [None] * 4
    assert (evaluator.seen, outcome.validation.loss, outcome.chosen_round) == ([[2.0] * 3], 12.0, 2)


def test_the_average_of_the_last_global_models_is_the_result_and_is_judged(tmp_path, make_plan, setup_for):
    plan = make_plan(rounds=4, server={"average_rounds": 3}, stopping={"patience_rounds": 9})
    setup = setup_for(plan, moving(*[[1, 1, 1]] * 4), silent={3: SITES}, evaluator=DistanceEvaluator([2, 2, 2]))
    outcome = run(setup, tmp_path)
    # Round 3 was lost: the last three models are those of rounds 1, 2 and 4, that is 1, 2 and 3.
    assert (outcome.chosen, outcome.model.weights.tolist()) == ("averaged", [2.0, 2.0, 2.0])
    assert (outcome.chosen_round, outcome.validation.loss) == (4, 0.0)


def test_without_patience_or_average_the_last_model_is_the_result(tmp_path, make_plan, setup_for):
    setup = setup_for(make_plan(), moving(*[[1, 1, 1]] * 4), silent={4: SITES}, evaluator=DistanceEvaluator([1, 1, 1]))
    outcome = run(setup, tmp_path)
    assert (outcome.chosen, outcome.chosen_round, outcome.model.weights.tolist()) == ("last", 3, [3.0, 3.0, 3.0])
    assert outcome.validation == outcome.rounds[2].validation


# --- what must fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("update", "name"), [([0, 0, 1], "adapter"), ([1, 1, 0], "head"), ([1e-13, 0, 1], "adapter")])
def test_a_group_that_did_not_move_fails_the_run_by_name(tmp_path, make_plan, setup_for, update, name):
    with pytest.raises(CloisterError, match=f"the {name} did not move in any of 4 rounds") as caught:
        run(setup_for(make_plan(), moving(*[update] * 4)), tmp_path)
    assert (caught.value.exit_code, "not frozen" in caught.value.hint) == (1, True)


def test_a_group_that_moved_in_one_round_has_moved(tmp_path, make_plan, setup_for):
    run(setup_for(make_plan(), moving([0, 0, 1], [0, 0, 1], [1e-9, 0, 1], [0, 0, 1])), tmp_path)


def test_three_rounds_in_a_row_without_enough_sites_end_the_run(tmp_path, make_plan, setup_for):
    silent = dict.fromkeys((2, 3, 5, 6, 7), ("a", "b"))
    setup = setup_for(make_plan(rounds=9), silent=silent)
    with pytest.raises(TooFewSitesError, match=r"fewer than 2 sites .* last 3 rounds \(answers: 1, 1, 1\)") as caught:
        run(setup, tmp_path)
    assert caught.value.exit_code == 16
    assert load_checkpoint(tmp_path, setup.plan.digest).round_number == 7
    assert run(setup, tmp_path, resume=True).rounds[-1].round_number == 9


def test_empty_rounds_at_the_very_end_do_not_take_the_result_away(tmp_path, make_plan, setup_for):
    outcome = run(setup_for(make_plan(), silent=dict.fromkeys((2, 3, 4), SITES)), tmp_path)
    assert outcome.chosen_round == 1


def test_a_short_run_without_any_round_fails_at_its_end(tmp_path, make_plan, setup_for):
    with pytest.raises(TooFewSitesError, match="in any round"):
        run(setup_for(make_plan(rounds=2), silent={1: SITES, 2: SITES}), tmp_path)


def test_a_validation_loss_that_is_not_finite_ends_the_run(tmp_path, make_plan, setup_for):
    with pytest.raises(CloisterError, match="global model of round 1 has a validation loss of nan"):
        run(setup_for(make_plan(), evaluator=DistanceEvaluator([np.nan, 0, 0])), tmp_path)


def test_weights_beyond_float32_end_the_run(tmp_path, make_plan, setup_for):
    plan = make_plan(server={"learning_rate": 1e39}, stopping={"judge_rounds": 4})
    with pytest.raises(CloisterError, match="global model of round 1 has values that are not finite"):
        run(setup_for(plan, moving([1, 1, 1])), tmp_path)


@pytest.mark.parametrize(
    ("sections", "changes", "message"),
    [
        ({"sites": 4}, {}, "for 4 different sites, and 3 were named"),
        ({}, {"sites": ("a", "b", "b")}, "3 different sites"),
        ({"adapter": {"svd_refresh_rounds": 1}}, {}, "svd_refresh_rounds"),
        ({"stopping": {"patience_rounds": 1}}, {}, "public validation set"),
    ],
)
def test_a_setup_that_contradicts_the_plan_is_refused_before_anything_is_sent(
    tmp_path, make_plan, setup_for, sections, changes, message
):
    setup = replace(setup_for(make_plan(**sections)), **changes)
    with pytest.raises(ConfigError, match=message):
        run(setup, tmp_path)
    assert setup.transport.orders == []


# --- resuming --------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_a_run_is_not_begun_again(tmp_path, make_plan, setup_for):
    run(setup_for(make_plan()), tmp_path)
    with pytest.raises(UsageError, match="already holds 4 finished rounds") as caught:
        run(setup_for(make_plan()), tmp_path)
    assert "--resume" in caught.value.hint


def test_a_folder_of_another_plan_is_not_resumed(tmp_path, make_plan, setup_for):
    run(setup_for(make_plan()), tmp_path)
    with pytest.raises(IntegrityError, match="belongs to plan"):
        run(setup_for(make_plan(seed=2)), tmp_path, resume=True)


def test_resuming_a_finished_run_asks_nobody_and_gives_its_outcome_again(tmp_path, make_plan, setup_for):
    plan = make_plan(rounds=9, server={"average_rounds": 2}, stopping={"patience_rounds": 1})
    first = run(setup_for(plan, evaluator=DistanceEvaluator([0, 0, 0])), tmp_path)
    setup = setup_for(plan, evaluator=DistanceEvaluator([0, 0, 0]))
    again = run(setup, tmp_path, resume=True)
    assert setup.transport.orders == []
    assert again.model.weights.tobytes() == first.model.weights.tobytes()
    assert again.rounds == first.rounds


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class Killer:
    """Counts named moments and kills at the given ones."""

    def __init__(self, *moments):
        self.moments, self.count = set(moments), 0

    def __call__(self, name):
        self.count += 1
        if self.count in self.moments:
            raise KilledError(name)


KILLED_PLANS = {
    "plain": {},
    "momentum, average": {"server": {"momentum": 0.5, "average_rounds": 2}},
    "adam": {"server": {"optimizer": "fedadam", "momentum": 0.9, "learning_rate": 0.1}},
    "patience": {"rounds": 6, "stopping": {"patience_rounds": 2}},
    "judged now and then": {"rounds": 5, "stopping": {"patience_rounds": 2, "judge_rounds": 2}},
    "refresh": {"adapter": {"svd_refresh_rounds": 1}},
}


@pytest.fixture
def killed_setup(start, formula_answer, monkeypatch):
    """A setup in which every exchange, answer, evaluation, refresh, durable write and report may be the last."""

    def build(plan, killer):
        def write_or_die(path, content):
            killer("before write")
            (path.parent / f".{path.name}.half").write_bytes(content[: len(content) // 2])
            killer("half written")
            path.write_bytes(content)  # one step as far as this test can see; without waiting for the disk
            killer("after write")

        monkeypatch.setattr(server.sealed_arrays, "write_durably", write_or_die)

        def refresh(weights, basis):
            killer("refresh")
            return weights[::-1] * 1.5, np.full(1, basis.sum() + 1)

        return RunSetup(
            plan=plan,
            sites=SITES,
            transport=FormulaTransport(formula_answer, {2: ("a", "b")}, killer),
            start=start,
            groups=GROUPS,
            evaluator=DistanceEvaluator([0.3, -0.1, 0.2], killer),
            refresh=refresh,
            observer=lambda summary: killer("observer"),
        )

    return build


def essence(outcome):
    """Everything of an outcome that a clock does not decide."""
    rounds = [replace(summary, seconds=0.0) for summary in outcome.rounds]
    arrays = outcome.model.weights.tobytes(), outcome.model.basis.tobytes()
    return arrays, outcome.chosen, outcome.chosen_round, outcome.validation, rounds, outcome.stopped_early


@pytest.mark.parametrize("sections", KILLED_PLANS.values(), ids=KILLED_PLANS)
def test_a_run_killed_at_any_moment_resumes_and_ends_like_an_undisturbed_one(
    tmp_path, make_plan, killed_setup, sections
):
    plan, watch = make_plan(**sections), Killer()
    (tmp_path / "whole").mkdir()
    whole = killed_setup(plan, watch)
    expected = essence(run(whole, tmp_path / "whole"))
    sent = dict.fromkeys(whole.transport.orders)
    for moment in range(1, watch.count + 1):
        folder = tmp_path / str(moment)
        folder.mkdir()
        killed = killed_setup(plan, Killer(moment))
        with pytest.raises(KilledError):
            run(killed, folder)
        resumed = killed_setup(plan, Killer())
        assert essence(run(resumed, folder, resume=True)) == expected
        # What sites were sent is what they would have been sent, so no site can be charged for anything else.
        assert set(killed.transport.orders) | set(resumed.transport.orders) == set(sent)


def test_a_run_killed_again_and_again_still_ends_alike(tmp_path, make_plan, killed_setup):
    plan = make_plan(**KILLED_PLANS["momentum, average"])
    (tmp_path / "whole").mkdir()
    expected = essence(run(killed_setup(plan, Killer()), tmp_path / "whole"))
    killer = Killer(*range(3, 400, 11))  # a round has 11 moments or fewer, so each life finishes one round at most
    lives, outcome = 0, None
    (tmp_path / "cat").mkdir()
    while outcome is None:
        lives += 1
        try:
            outcome = run(killed_setup(plan, killer), tmp_path / "cat", resume=True)
        except KilledError:
            continue
    assert essence(outcome) == expected
    assert lives > 3
