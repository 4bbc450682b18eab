import pytest

from simulations.attacks.coordinator import HostileCoordinator
from simulations.attacks.hospitals import HONEST, NAMES, Study


@pytest.fixture
def server(tmp_path):
    return HostileCoordinator(Study(tmp_path))


def test_an_honest_round_gives_the_sum_and_no_refusal(server):
    server.play(server.open_session())
    [opening] = server.view.openings()
    given = [server.study.hospitals[name].trainer.given[0][1] for name in HONEST]
    assert list(opening.values) == sum(given).tolist()
    assert server.study.refusals == []


def test_a_colluder_is_asked_for_nothing_but_its_keys(server):
    server.play(server.open_session())
    assert [name for name, _ in server.study.sent].count("west") == 1


def test_a_colluder_signs_what_it_is_asked(server):
    session = server.open_session()
    order = server.order(session)
    server.collect(session, order)
    consents = server.consents(session, order, HONEST, NAMES)
    assert list(consents) == list(NAMES)
    assert consents["west"] == server.signature_of("west", session, order, HONEST)


def test_without_consents_nothing_is_asked_for(server):
    session = server.open_session()
    order = server.order(session, cohort=("east",))
    server.open_sum(session, order, ("east",), ["east"])
    assert server.study.refusals == ["unexpected-round"]
    assert server.view.openings() == []
