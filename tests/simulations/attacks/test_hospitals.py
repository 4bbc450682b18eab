import numpy as np
import pytest

from common.messages import Refusal
from common.secagg.messages import MaskedReply, SessionInvite, SessionKeys
from simulations.attacks.coordinator import HostileCoordinator
from simulations.attacks.hospitals import DIMENSION, HONEST, NAMES, PowerCut, Study


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


def test_the_plan_is_a_safe_one_that_names_the_hospitals(study):
    assert study.plan.masked
    assert study.plan.parameters.problems() == []
    assert tuple(study.plan.roster) == NAMES


def test_hospitals_have_numbers_of_their_own_and_new_ones_at_every_call(study):
    trainers = [study.hospitals[name].trainer for name in HONEST]
    order = HostileCoordinator(study).order(HostileCoordinator(study).open_session())
    given = [trainer.train(order) for trainer in trainers * 2]
    assert all(numbers.shape == (DIMENSION,) and numbers.dtype == np.int64 for numbers in given)
    assert len({numbers.tobytes() for numbers in given}) == 2 * len(trainers)


def test_what_leaves_is_recorded_as_it_is(study):
    answer = study.ask("east", SessionInvite(study.plan.digest, "5e" * 32, 1, 1))
    assert isinstance(answer, SessionKeys)
    assert [name for name, _ in study.sent] == ["east"]
    assert answer.keys.tobytes() in study.sent[0][1]
    assert study.refusals == []


def test_a_failed_training_is_answered_and_a_power_cut_is_not(study):
    server = HostileCoordinator(study)
    session = server.open_session()
    order = server.order(session)
    study.hospitals["east"].fail_once()
    assert isinstance(server.ask("east", order), Refusal)
    study.hospitals["north"].cut_power_once()
    with pytest.raises(PowerCut):
        server.ask("north", order)
    study.hospitals["north"].start()
    assert isinstance(server.ask("north", order), MaskedReply)
    assert study.refusals == ["no-update"]
