"""A coordinator that lies in every way we could think of, and what it gets.

Run it: `python -m simulations.attacks.curious_server`. It takes seconds and needs no model.

Four real hospitals (`client.node`) hold made-up numbers. One of them, `west`, tells the coordinator all it knows,
which is as many as their plan tolerates. Each attack (`lies`) begins with new hospitals, lies, and then puts
together all that the coordinator has seen and been told (`whole_view`). It has failed if what comes to light is at
most one sum a round, each of at least two honest hospitals (n - d - c), and if the lie was refused where a hospital
can see it.

The last attacks break a promise that the plan makes or the hospital keeps. They succeed, and must: it shows that the
search would find a hospital's numbers if they could be found.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from common.fields import RefusalCode
from simulations.attacks import lies
from simulations.attacks.coordinator import HostileCoordinator
from simulations.attacks.hospitals import Study
from simulations.attacks.whole_view import Opening

INTRODUCTION = """Four hospitals with made-up numbers; west tells the coordinator all it knows, and one may be missing
from a round. closed: at most one sum a round came to light, each of two honest hospitals or more, as the plan promises.

"""

FEWEST_IN_A_SUM = 2
"""n - d - c: four hospitals, one missing, one colluding."""


@dataclass(frozen=True)
class Attack:
    """An attack, and how it must end.

    Attributes:
        name: For the table.
        run: What is tried; its docstring says it.
        refusal: The code with which hospitals refuse the lie; empty where they answer, and the answer is of no use.
        promised: Whether it must fail; otherwise a promise is broken first, and it must succeed.
    """

    name: str
    run: Callable[[HostileCoordinator], None]
    refusal: RefusalCode | None = None
    promised: bool = True


ATTACKS = (
    Attack("keys swapped on the way", lies.swap_keys, "bad-keys"),
    Attack("invented hospitals", lies.invent_sites, "bad-keys"),
    Attack("rosters that differ", lies.split_rosters, "bad-keys"),
    Attack("models that differ", lies.split_models, "other-context"),
    Attack("cohorts that differ", lies.split_cohorts, "other-context"),
    Attack("two contexts", lies.two_contexts, "other-context"),
    Attack("survivor sets that differ", lies.split_survivors, "too-few-consents"),
    Attack("cohort of one", lies.cohort_of_one, "bad-cohort"),
    Attack("survivor set of one", lies.survivor_set_of_one, "bad-cohort"),
    Attack("threshold lowered", lies.lowered_threshold, "too-few-consents"),
    Attack("both shares of one hospital", lies.double_reveal, "conflicting-survivors"),
    Attack("shares of another round", lies.shares_of_another_round, "bad-share"),
    Attack("round replayed", lies.replayed_round, "conflicting-order"),
    Attack("other model after a kill", lies.order_after_a_kill, "conflicting-order"),
    Attack("old session again", lies.old_session, "other-session"),
    Attack("rounds given up", lies.abort_and_retry, "unexpected-round"),
    Attack("reveal without consents", lies.no_consents, "too-few-consents"),
    Attack("survivor without numbers", lies.survivor_without_numbers, "other-context"),
    Attack("colluder tells all", lies.colluder_tells_all),
    Attack("late reply", lies.late_reply),
    Attack("one colluder too many", lies.two_colluders, promised=False),
    Attack("threshold of colluders", lies.three_shares, promised=False),
    Attack("book restored from a backup", lies.restored_book, promised=False),
)


@dataclass(frozen=True)
class Outcome:
    """What came of an attack: the refusals by code, and what came to light."""

    attack: Attack
    refusals: Counter[str]
    openings: tuple[Opening, ...]

    @property
    def closed(self) -> bool:
        """Whether at most one sum a round came to light, each of enough honest hospitals, and the lie was refused."""
        rounds = [opening.round_number for opening in self.openings]
        sums = all(_is_sum(opening) for opening in self.openings) and len(set(rounds)) == len(rounds)
        return sums and (self.attack.refusal is None or self.attack.refusal in self.refusals)

    @property
    def as_promised(self) -> bool:
        """Whether it ended as it must."""
        return self.closed == self.attack.promised


def _is_sum(opening: Opening) -> bool:
    names = [site for site, weight in opening.weights if weight == 1]
    return len(set(names)) == len(opening.weights) >= FEWEST_IN_A_SUM


def try_attack(attack: Attack, folder: Path) -> Outcome:
    """Run one attack on new hospitals in an empty folder."""
    server = HostileCoordinator(Study(folder))
    attack.run(server)
    return Outcome(attack, Counter(server.study.refusals), tuple(server.view.openings()))


def row(outcome: Outcome) -> str:
    """One line of the table, and one that says what was tried."""
    verdict = "closed" if outcome.closed else "OPEN"
    known = "; ".join(f"round {opening.round_number}: {opening}" for opening in outcome.openings) or "nothing"
    refused = ", ".join(f"{code} ({count})" for code, count in outcome.refusals.items()) or "none"
    tried = (outcome.attack.run.__doc__ or "").strip()
    return (
        f"{verdict:6}  {outcome.attack.name}\n        {tried}\n        refusals: {refused}. Comes to light: {known}.\n"
    )


def main() -> int:
    """Try every attack, print the table; 0 when each ended as it must."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    outcomes = []
    sys.stdout.write(INTRODUCTION)
    for attack in ATTACKS:
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(try_attack(attack, Path(folder)))
        if not attack.promised and outcomes[-2].attack.promised:
            sys.stdout.write("\nBeyond what is promised: these must succeed.\n\n")
        sys.stdout.write(row(outcomes[-1]))
    wrong = [outcome.attack.name for outcome in outcomes if not outcome.as_promised]
    closed = sum(outcome.closed for outcome in outcomes)
    told = f"not as they must: {', '.join(wrong)}" if wrong else "all as they must"
    sys.stdout.write(f"\n{len(outcomes)} attacks: {closed} closed, {len(outcomes) - closed} open; {told}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
