"""Every lie fails closed; without the check that stops it, it does not; and what must come to light does."""

from pathlib import Path

import numpy as np
import pytest

import client.secagg
import common.secagg.roster
from client.charges import Charges
from client.secagg import SiteHalf
from common.messages import Refusal
from common.secagg.messages import Consent, MaskedReply, Reveal, SessionKeys, SessionShares
from common.wire import KINDS, decode
from simulations.attacks import curious_server
from simulations.attacks.coordinator import HostileCoordinator
from simulations.attacks.curious_server import ATTACKS, Outcome, main, row, try_attack
from simulations.attacks.hospitals import Study

NAMED = {attack.name: attack for attack in ATTACKS}
# What the coordinator can read after each attack, beside its colluders' numbers.
LIGHT = {
    "rosters that differ": ["east + north"],
    "survivor sets that differ": ["east + north + south"],
    "both shares of one hospital": ["east + north + south"],
    "round replayed": ["east + north + south"] * 2,
    "other model after a kill": ["east + north + south"],
    "rounds given up": ["east + north + south"],
    "colluder tells all": ["east + north + south"],
    "late reply": ["north + south"],
    "one colluder too many": ["east"],
    "threshold of colluders": ["east"],
    "book restored from a backup": ["- east + east"],
}


@pytest.mark.parametrize("name", NAMED)
def test_what_comes_to_light(tmp_path, name):
    outcome = try_attack(NAMED[name], tmp_path)
    assert outcome.as_promised
    assert [str(opening) for opening in outcome.openings] == LIGHT.get(name, [])


@pytest.mark.parametrize("name", NAMED)
def test_what_comes_to_light_is_what_the_hospitals_put_in(tmp_path, name):
    """Otherwise the search would find nothing because it computes wrongly."""
    study = Study(tmp_path)
    server = HostileCoordinator(study)
    NAMED[name].run(server)
    for opening in server.view.openings():
        given = {site: study.hospitals[site].trainer.given for site, _ in opening.weights}
        mine = [
            (weight, [numbers for number, numbers in given[site] if number == opening.round_number])
            for site, weight in opening.weights
        ]
        if name == "book restored from a backup":
            mine = [(-1, [mine[0][1][0]]), (1, [mine[1][1][1]])]
        total = sum(weight * numbers[0] for weight, numbers in mine)
        assert list(opening.values) == np.asarray(total).tolist()


@pytest.mark.parametrize("name", [name for name, attack in NAMED.items() if attack.promised])
def test_only_messages_of_the_protocol_left_and_no_numbers_in_the_clear(tmp_path, name):
    study = Study(tmp_path)
    NAMED[name].run(HostileCoordinator(study))
    kinds = {type(decode(frame, *KINDS.values())) for _, frame in study.sent}
    assert kinds <= {SessionKeys, SessionShares, MaskedReply, Consent, Reveal, Refusal}
    for hospital in study.hospitals.values():
        for _, numbers in hospital.trainer.given:
            clear = numbers.astype(np.uint32).tobytes()
            assert not any(clear in frame for _, frame in study.sent)


# --- each check, taken out -------------------------------------------------------------------------------------------


def without_signatures_of_keys(patch):
    patch.setattr(common.secagg.roster, "is_signed_by", lambda *_: True)


def without_a_threshold(patch):
    patch.setattr(SiteHalf, "_check_enough", lambda *_: None)


def without_one_survivor_set(patch):
    patch.setattr(Charges, "survivors_fault", lambda *_: None)


def without_one_context(patch):
    patch.setattr(SiteHalf, "_check_replies", lambda *_: None)


def without_signatures_of_consents(patch):
    patch.setattr(client.secagg, "is_signed_by", lambda *_: True)


OPENED = [
    ("keys swapped on the way", without_signatures_of_keys, "east"),
    ("survivor set of one", without_a_threshold, "east"),
    ("both shares of one hospital", without_one_survivor_set, "east"),
    ("two contexts", without_one_context, "east"),
]


@pytest.mark.parametrize(("name", "planted", "victim"), OPENED)
def test_planted_fault_brings_one_hospitals_numbers_to_light(tmp_path, monkeypatch, name, planted, victim):
    planted(monkeypatch)
    outcome = try_attack(NAMED[name], tmp_path)
    assert victim in [str(opening) for opening in outcome.openings]
    assert not outcome.as_promised


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("reveal without consents", without_signatures_of_consents),
        ("cohort of one", without_a_threshold),
    ],
)
def test_planted_fault_that_another_check_backs_up_is_noticed_all_the_same(tmp_path, monkeypatch, name, planted):
    planted(monkeypatch)
    outcome = try_attack(NAMED[name], tmp_path)
    assert not outcome.as_promised


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_script_prints_every_attack_and_ends_well(capsys, monkeypatch):
    monkeypatch.setattr(curious_server.structlog, "configure", lambda **_: None)  # it is for the process, not for tests
    assert main() == 0
    printed = capsys.readouterr().out
    assert all(attack.name in printed and attack.run.__doc__.strip() in printed for attack in ATTACKS)
    assert f"{len(ATTACKS)} attacks: 20 closed, 3 open; all as they must" in printed


def test_the_script_ends_badly_when_a_lie_works(capsys, monkeypatch):
    monkeypatch.setattr(curious_server.structlog, "configure", lambda **_: None)
    monkeypatch.setattr(curious_server, "ATTACKS", (NAMED["survivor set of one"],))
    without_a_threshold(monkeypatch)
    assert main() == 1
    assert "OPEN    survivor set of one" in capsys.readouterr().out


def test_an_attack_that_must_succeed_and_does_not_ends_badly(tmp_path):
    attack = NAMED["one colluder too many"]
    assert not Outcome(attack, curious_server.Counter(), ()).as_promised
    assert "closed" in row(Outcome(attack, curious_server.Counter(), ()))


def test_the_threat_model_counts_the_attacks():
    page = (Path(__file__).parents[3] / "docs" / "threat-model.md").read_text(encoding="utf-8")
    promised = sum(attack.promised for attack in ATTACKS)
    assert f"{promised} attacks fail. {len(ATTACKS) - promised} that first break an assumption" in page
