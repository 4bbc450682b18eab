"""The masked sum is the plain sum, bit for bit, or nothing: whoever drops out, at whichever message."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.secagg import TooFewSitesAgreeError
from common.errors import ProtocolError
from tests.secagg_play import Round, make_study, random_inputs, start_round

MESSAGES = ("keys", "shares", "reply", "consent", "reveal")
QUICK = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Case:
    """n, d, c, the vector's length, and at which message each missing site is lost, from then on or only there."""

    sites: int
    dropouts: int
    colluders: int
    dimension: int
    seed: int
    lost: tuple[tuple[int, str, bool], ...]

    def missing(self, message: str) -> set[str]:
        """Sites whose message does not come."""
        at = MESSAGES.index(message)
        return {
            f"a{number:02}"
            for number, first, for_good in self.lost
            if MESSAGES.index(first) == at or (for_good and MESSAGES.index(first) < at)
        }


@st.composite
def cases(draw: st.DrawFn, most_sites: int = 40, most_lost: int = 99) -> Case:
    sites = draw(st.integers(3, most_sites))
    dropouts = draw(st.integers(0, (sites - 1) // 2))
    colluders = draw(st.integers(0, max(0, sites - 2 * dropouts - 1)))
    who = draw(st.lists(st.integers(0, sites - 1), unique=True, max_size=min(dropouts, most_lost)))
    lost = tuple((site, draw(st.sampled_from(MESSAGES)), draw(st.booleans())) for site in who)
    dimension = draw(st.one_of(st.integers(1, 64), st.integers(1, 10_000)))
    return Case(sites, dropouts, colluders, dimension, draw(st.integers(0, 2**32)), lost)


def play(folder, case: Case) -> tuple[Round, dict[str, np.ndarray]]:
    """The round after step 10, and what the survivors put in."""
    study = make_study(folder, case.sites, case.dropouts, min(case.colluders, case.sites - case.dropouts - 1))
    session = study.session(study.roster(without=case.missing("keys")), without=case.missing("shares"))
    game = start_round(study, session, case.dimension)
    arriving = [name for name in session.cohort if name not in case.missing("reply")]
    inputs = random_inputs(arriving, case.dimension, case.seed)
    game.mask(inputs)
    game.agree([name for name in session.cohort if name not in case.missing("consent")])
    game.reveal([name for name in session.cohort if name not in case.missing("reveal")])
    return game, inputs


@QUICK
@given(case=cases())
def test_the_masked_sum_is_the_plain_sum(tmp_path, case):
    game, inputs = play(tmp_path, case)
    assert game.coordinator.survivors == tuple(sorted(inputs))
    assert game.coordinator.enough_shares
    np.testing.assert_array_equal(game.coordinator.total(), sum(inputs.values()))


@pytest.mark.parametrize(
    ("sites", "dropouts", "colluders", "degree"), [(60, 3, 5, 32), (90, 10, 4, 32), (120, 30, 4, 36)]
)
def test_so_it_is_where_each_site_has_few_neighbours(tmp_path, sites, dropouts, colluders, degree):
    lost = tuple((7 * place + 1, MESSAGES[place % 5], place % 2 == 0) for place in range(dropouts))
    case = Case(sites, dropouts, colluders, 257, seed=sites, lost=lost)
    game, inputs = play(tmp_path, case)
    assert game.study.plan.parameters.neighbourhood.degree == degree < sites - 1
    np.testing.assert_array_equal(game.coordinator.total(), sum(inputs.values()))


def test_the_largest_sums_wrap_nowhere(tmp_path):
    study = make_study(tmp_path)
    game = start_round(study, study.session(study.roster()), dimension=2)
    inputs = {name: np.int64([2**29 - 1, -(2**29)]) for name in study.names}
    game.mask(inputs)
    game.agree(study.names)
    game.reveal(study.names)
    assert game.coordinator.total().tolist() == [2**31 - 4, -(2**31)]


# --- below the threshold ---

FOUR = Case(sites=4, dropouts=1, colluders=1, dimension=3, seed=1, lost=())


@pytest.mark.parametrize("first", MESSAGES[:4])
@pytest.mark.parametrize("second", MESSAGES[:4])
def test_with_one_site_too_few_a_site_stops(tmp_path, first, second):
    """Of four sites one may drop out. Two do, at any two messages, and no site reveals anything."""
    case = replace(FOUR, lost=((0, first, True), (2, second, True)))
    with pytest.raises(TooFewSitesAgreeError):
        play(tmp_path, case)


@pytest.mark.parametrize("first", MESSAGES)
def test_with_one_reveal_too_few_there_is_no_sum(tmp_path, first):
    game, _ = play(tmp_path, replace(FOUR, lost=((0, first, True), (2, "reveal", True))))
    assert not game.coordinator.enough_shares
    with pytest.raises(ProtocolError, match="does not give the secret"):
        game.coordinator.total()


@QUICK
@given(case=cases(most_sites=12, most_lost=0), message=st.sampled_from(MESSAGES[:4]))
def test_one_below_the_threshold_nothing_comes_out(tmp_path, case, message):
    lost = tuple((number, message, True) for number in range(case.dropouts + 1))
    with pytest.raises(TooFewSitesAgreeError):
        play(tmp_path, replace(case, lost=lost))


def test_what_the_coordinator_has_without_the_reveals_is_noise(tmp_path):
    """All inputs are zero, and still nothing of the sum is."""
    study = make_study(tmp_path)
    game = start_round(study, study.session(study.roster()), dimension=1000)
    game.mask({name: np.zeros(1000, np.int64) for name in study.names})
    assert np.count_nonzero(game.coordinator.masked_total) > 990
