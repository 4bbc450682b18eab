from dataclasses import asdict

import pytest

from client.ledger.rows import BudgetSet, Committed, Opened, Recovered, Reserved, Stepped, new_row
from client.ledger.state import LONG_AGO, Account, LedgerState, fold
from client.standing import Standing
from common.errors import IntegrityError
from common.identity import new_identity, public_name
from common.privacy.renyi_filter import RenyiFilter
from tests.client.ledger_site import COORDINATOR, HOST, ORDER, OTHER_PLAN, PLAN, ROUNDS, RUN, Clock

IDENTITY = new_identity()
OPENED = Opened(ledger="0" * 64, site=public_name(IDENTITY), host=HOST)
BUDGET = BudgetSet(dataset="records", unit="patient", epsilon=5.0, delta=1e-5, order=5)
RESERVED = Reserved(
    plan_digest=PLAN,
    plan_name="study",
    coordinator=COORDINATOR,
    dataset="records",
    unit="patient",
    rounds=ROUNDS,
    cost=1.0,
    mechanism=asdict(RUN),
)
BEGUN = Committed(plan_digest=PLAN, round_number=2, order_digest=ORDER)
ANSWERED = Stepped(plan_digest=PLAN, round_number=2, step="answered", digest="a" * 64)
AGREED = Stepped(plan_digest=PLAN, round_number=2, step="agreed", digest="b" * 64)
RECOVERED = Recovered(reason="lost", finding="", plans=(OTHER_PLAN,))
OTHER = RESERVED.model_copy(update={"plan_digest": OTHER_PLAN})


def folded(*contents, clock=None):
    rows, clock = [], clock or Clock()
    for content in contents:
        rows.append(new_row(rows[-1] if rows else None, content, clock(), IDENTITY))
    return fold(rows)


def test_nothing_is_nothing():
    assert fold([]) == LedgerState()
    assert LedgerState().latest_time == LONG_AGO


def test_entries_add_up():
    state = folded(OPENED, BUDGET, RESERVED, BEGUN)
    assert state.opened == OPENED
    assert state.accounts == {("records", "patient"): Account(RenyiFilter(5.0, 1e-5, 5), (1.0,))}
    assert (state.reservations[PLAN].sequence, state.reservations[PLAN].cost) == (3, 1.0)
    assert state.reservations[PLAN].mechanism == asdict(RUN)
    assert (state.committed(PLAN).last_round, state.committed(PLAN).order_digest) == (2, ORDER)
    assert (state.committed(OTHER_PLAN).last_round, state.committed(OTHER_PLAN).order_digest) == (0, "")
    assert (state.recovered, state.closed, state.notes) == (False, frozenset(), ())
    assert state.latest_time == Clock().now


def test_a_round_is_answered_and_agreed_about_until_the_next_begins():
    state = folded(OPENED, BUDGET, RESERVED, BEGUN, ANSWERED, AGREED)
    assert state.committed(PLAN) == Standing(2, ORDER, "a" * 64, "b" * 64)
    begun = BEGUN.model_copy(update={"round_number": 3})
    assert folded(OPENED, BUDGET, RESERVED, BEGUN, ANSWERED, begun).committed(PLAN) == Standing(3, ORDER)


def test_a_recovery_empties_every_budget_and_closes_every_plan():
    images = BUDGET.model_copy(update={"dataset": "images"})
    state = folded(OPENED, BUDGET, images, RESERVED, BEGUN, RECOVERED)
    limit = RenyiFilter(5.0, 1e-5, 5).limit
    assert [account.spent for account in state.accounts.values()] == [limit, limit]
    assert state.closed == {PLAN, OTHER_PLAN}
    assert set(state.reservations) == {PLAN}


def test_a_recovery_never_makes_less_of_what_was_spent():
    lowered = BUDGET.model_copy(update={"epsilon": 2.5})
    state = folded(OPENED, BUDGET, RESERVED, lowered, RECOVERED)
    assert state.account("records", "patient").spent == 1.0 > RenyiFilter(2.5, 1e-5, 5).limit


def test_a_budget_that_is_new_after_a_recovery_is_empty_until_it_is_raised():
    raised = BUDGET.model_copy(update={"epsilon": 5.5})
    assert folded(OPENED, RECOVERED, BUDGET).balance("records", "patient").left == 0
    assert folded(OPENED, RECOVERED, BUDGET, raised).balance("records", "patient").left == pytest.approx(0.5)


@pytest.mark.parametrize(
    "contents",
    [
        [BUDGET],
        [OPENED, OPENED],
        [OPENED, BUDGET, BUDGET.model_copy(update={"order": 6})],
        [OPENED, RESERVED],
        [OPENED, BUDGET, RESERVED, RESERVED],
        [OPENED, BUDGET, RECOVERED, OTHER],
        [OPENED, BUDGET, BEGUN],
        [OPENED, BUDGET, RESERVED, BEGUN, BEGUN],
        [OPENED, BUDGET, RESERVED, BEGUN, BEGUN.model_copy(update={"round_number": 1})],
        [OPENED, BUDGET, RESERVED, BEGUN.model_copy(update={"round_number": ROUNDS + 1})],
        [OPENED, BUDGET, RESERVED, RECOVERED, BEGUN],
        [OPENED, BUDGET, RESERVED, RECOVERED, RESERVED],
        [OPENED, BUDGET, RESERVED, ANSWERED],
        [OPENED, BUDGET, RESERVED, BEGUN, AGREED],
        [OPENED, BUDGET, RESERVED, BEGUN, ANSWERED, ANSWERED],
        [OPENED, BUDGET, RESERVED, BEGUN, ANSWERED.model_copy(update={"round_number": 1})],
        [OPENED, BUDGET, RESERVED, BEGUN, ANSWERED, BEGUN],
        [OPENED, BUDGET, RESERVED, BEGUN, RECOVERED, ANSWERED],
    ],
    ids=range(18),
)
def test_an_entry_that_cannot_follow_is_refused(contents):
    folded(*contents[:-1])
    with pytest.raises(IntegrityError, match=f"contradicts itself: entry {len(contents)} cannot follow"):
        folded(*contents)


def test_clocks_that_move_back_are_noted_and_the_latest_time_stays():
    clock = Clock()
    start = clock.now
    moves = iter([0, 60, -600, 30, 900])

    def moving():
        clock.move(seconds=next(moves))
        return clock.now

    raised = [BUDGET.model_copy(update={"epsilon": 5.0 + step}) for step in range(4)]
    state = folded(OPENED, *raised, clock=moving)
    assert state.notes == tuple(f"entry {n}: the clock had moved back by {s} s" for n, s in ((3, 600), (4, 570)))
    assert (state.latest_time - start).total_seconds() == 390


def test_a_recovery_forgets_a_clock_that_ran_ahead():
    clock, rows = Clock(), []
    for content, days in ((OPENED, 36500), (BUDGET, 0), (RECOVERED, -36500)):
        clock.move(days=days)
        rows.append(new_row(rows[-1] if rows else None, content, clock(), IDENTITY))
    state = fold(rows)
    assert state.latest_time == clock.now
    assert state.notes == ()
