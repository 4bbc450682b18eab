"""Lies are told, and their outcome is judged, in test_curious_server; here: that none is left out."""

import inspect

import pytest

from simulations.attacks import lies
from simulations.attacks.coordinator import HostileCoordinator
from simulations.attacks.curious_server import ATTACKS
from simulations.attacks.hospitals import Study


def functions():
    found = inspect.getmembers(lies, inspect.isfunction)
    return {lie for name, lie in found if lie.__module__ == lies.__name__ and not name.startswith("_")}


def test_every_lie_is_told_once():
    told = [attack.run for attack in ATTACKS]
    assert set(told) == functions()
    assert len(told) == len(set(told))


@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack.refusal], ids=lambda attack: attack.name)
def test_a_lie_is_refused_by_a_hospital_that_does_not_collude(tmp_path, attack):
    study = Study(tmp_path)
    attack.run(HostileCoordinator(study))
    assert attack.refusal in study.refusals
