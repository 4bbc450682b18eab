"""What makes a run fail although every round was in order: empty rounds, and values that did not move."""

from __future__ import annotations

from collections.abc import Mapping

from common.errors import CloisterError, SecureAggregationError, TooFewSitesError
from common.plan import Plan
from server.state import RoundSummary

EMPTY_ROUNDS_LIMIT = 3
"""So many rounds in a row without enough sites end the run: each of them charges the sites that did answer."""

MOVEMENT_LIMIT = 1e-12
"""A group whose change has a smaller norm in every round did not move.

Updates are added on a grid of 2^-36 (1.5e-11), so what lies below is rounding, and a frozen group gives exactly zero. A
group that does train moves by many orders of magnitude more in a round.
"""


def check_sites_answer(plan: Plan, history: tuple[RoundSummary, ...]) -> None:
    """Refuse to go on after too many empty rounds in a row, while there are rounds left that stopping would save.

    Raises:
        SecureAggregationError: When secure aggregation gave up in each of them.
        TooFewSitesError: When it did not, or there is none.
    """
    last = history[-EMPTY_ROUNDS_LIMIT:]
    if len(history) < plan.rounds and len(last) == EMPTY_ROUNDS_LIMIT and not any(summary.applied for summary in last):
        raise _nothing_added_up(plan, f"in each of the last {EMPTY_ROUNDS_LIMIT} rounds", last)


def check_something_was_applied(plan: Plan, history: tuple[RoundSummary, ...]) -> None:
    """Refuse a whole run of empty rounds; raises as `check_sites_answer`."""
    if not any(summary.applied for summary in history):
        raise _nothing_added_up(plan, "in any round", history)


def _nothing_added_up(plan: Plan, when: str, rounds: tuple[RoundSummary, ...]) -> CloisterError:
    """What to say of empty rounds: that secure aggregation gave up, where it did in all of them, or else who failed."""
    if all(summary.abort for summary in rounds):
        return _aborted(when, rounds)
    return _too_few_sites(plan, when, rounds)


def _aborted(when: str, rounds: tuple[RoundSummary, ...]) -> SecureAggregationError:
    reasons = ", ".join(dict.fromkeys(summary.abort for summary in rounds))
    return SecureAggregationError(
        f"secure aggregation gave up {when} ({reasons})",
        hint="find out which sites are missing or answer wrongly, then resume; the budget already spent stays spent",
    )


def _too_few_sites(plan: Plan, when: str, rounds: tuple[RoundSummary, ...]) -> TooFewSitesError:
    counts = ", ".join(str(summary.survivors) for summary in rounds)
    return TooFewSitesError(
        f"fewer than {plan.minimum_sites} sites answered {when} (answers: {counts})",
        hint="find out why sites refuse or are not reached, then resume; the budget already spent stays spent",
    )


def check_every_group_moved(groups: Mapping[str, slice], history: tuple[RoundSummary, ...]) -> None:
    """The guard against a run that looks well and trained only a part of what it should.

    It sees a group that nothing trained. It cannot see a group that got noise and no gradient: with σ above 0 that
    group moves too, and the gradient self-test before the run is what finds it.
    """
    for name in groups:
        if all(summary.group_norms[name] < MOVEMENT_LIMIT for summary in history):
            raise CloisterError(
                f"the {name} did not move in any of {len(history)} rounds, so the result is not what it claims to be",
                hint="check that its modules are targeted, trained and not frozen, and that its learning rate is not 0",
            )
