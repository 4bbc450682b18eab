"""The whole protocol on one page: every role is played here, and one hospital drops out."""

import numpy as np

from client.secagg import SiteHalf
from client.session import SessionBook
from common.identity import new_identity, public_name
from common.secagg.masking import model_digest
from common.secagg.messages import MaskedOrder, SessionInvite, SessionRoster
from server.secagg import CoordinatorRound, Session
from tests.plans import make_plan

NAMES = ("east", "north", "south", "west")


def play_a_round(folder):
    # Before everything: each hospital's identity, and the plan that names them all.
    identities = {name: new_identity() for name in NAMES}
    plan = make_plan(
        sites=4,
        roster={name: public_name(identity) for name, identity in identities.items()},
        secure_aggregation={"masked": True, "tolerated_dropouts": 1, "tolerated_colluders": 1},
    )
    sites = {}
    for name in NAMES:
        (folder / name).mkdir()
        sites[name] = SiteHalf(name, plan, identities[name], SessionBook(folder / name, plan.digest, name))

    # 1, 2. The coordinator opens a session for one round; each site draws keys and signs them.
    invite = SessionInvite(plan.digest, session="5e" * 32, first_round=1, rounds=1)
    keys = [site.keys(invite, last_round=0) for site in sites.values()]

    # 3, 4. Everybody's keys go to everybody; each site checks them all and deals sealed shares to its neighbours.
    roster = SessionRoster.of(keys)
    session = Session(plan, roster, {name: site.shares(roster) for name, site in sites.items()})

    # 5, 6. Each site masks its numbers; the reply of `west` is lost, and the coordinator adds up the others.
    model = np.float32([0.5, -1.0, 2.0])
    order = MaskedOrder(plan.digest, session.id, 1, session.cohort, weights=model, basis=np.float32([]))
    secrets = {name: np.int64([10, -20, 30]) * place for place, name in enumerate(NAMES, start=1)}
    terms = {name: site.terms(order) for name, site in sites.items()}
    coordinator = CoordinatorRound(session, order, model_digest(order.weights, order.basis))
    for name in ("east", "north", "south"):
        coordinator.add(sites[name].mask(order, terms[name], secrets[name]))

    # 7, 8. The coordinator says whose replies it added up; each site signs that set, and no other in this round.
    survivors = coordinator.survivor_set()
    for name in ("east", "north", "south"):
        consent = sites[name].consent(survivors, terms[name])
        if coordinator.is_good(consent):
            coordinator.agree(consent)

    # 9, 10. Shown as many signatures as the threshold, each site reveals one share for each neighbour: of the self-mask
    # seed of a survivor, of the mask key of `west`, and never both.
    for name in ("east", "north", "south"):
        coordinator.open(sites[name].reveal(coordinator.reveal_request(name), terms[name]))

    # 11. The masks come off the sum, and off nothing else.
    return coordinator.total(), secrets["east"] + secrets["north"] + secrets["south"]


def test_the_sum_of_the_survivors_comes_out(tmp_path):
    total, expected = play_a_round(tmp_path)
    assert total.tolist() == expected.tolist() == [60, -120, 180]
