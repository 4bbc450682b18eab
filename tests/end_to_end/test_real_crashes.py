"""SIGKILL to real processes of a federation over TLS, and what a user does then: whatever died, the books cover it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.progress import RoundProgress, read_progress
from simulations.deployed import Deployment
from tests.deployed_play import PLAN, SITES, Study, deployed, kill, sharp

Moment = Callable[[Study], bool]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Deployment]:
    """A coordinator's service and three nodes; what a schedule kills it starts again."""
    with deployed(tmp_path_factory.mktemp("crashes"), tiny_base) as deployment:
        deployment.start_service()
        deployment.start_nodes()
        yield deployment
    assert deployment.remains() == []


def begun(federation: Deployment, name: str) -> Study:
    if name.startswith("base"):
        for base in federation.sites["a"].bases.iterdir():
            shutil.rmtree(base)
    study = Study(federation, federation.sign({**PLAN, "name": name}))
    study.begin()
    return study


def in_round(what: str, number: int) -> Moment:
    return lambda study: getattr(study, what)(number)


SCHEDULES: dict[str, list[tuple[Moment, str]]] = {
    "gathering-serverapp": [(Study.gathering, "serverapp")],
    "gathering-superlink": [(Study.gathering, "superlink")],
    "gathering-node": [(Study.gathering, "a")],
    "base-service": [(Study.fetching, "service")],
    "base-node": [(Study.fetching, "a")],
    "set-up-serverapp": [(Study.setting_up, "serverapp")],
    "set-up-superlink": [(Study.setting_up, "superlink")],
    "set-up-node": [(Study.setting_up, "b")],
    "order-serverapp": [(in_round("ordered", 1), "serverapp")],
    "order-service": [(in_round("ordered", 2), "service")],
    "order-superlink": [(in_round("ordered", 1), "superlink")],
    "order-node": [(in_round("ordered", 2), "b")],
    "consent-serverapp": [(in_round("answered", 1), "serverapp")],
    "consent-superlink": [(in_round("answered", 2), "superlink")],
    "consent-node": [(in_round("answered", 1), "b")],
    "reveal-serverapp": [(in_round("agreed", 2), "serverapp")],
    "reveal-service": [(in_round("agreed", 1), "service")],
    "reveal-node": [(in_round("agreed", 1), "b")],
    "between-superlink": [(in_round("saved", 1), "superlink")],
    "between-service": [(in_round("saved", 2), "service")],
    "end-serverapp": [(Study.exporting, "serverapp")],
    "end-node": [(in_round("agreed", 3), "c")],
    "everything": [(in_round("answered", 1), "b"), (in_round("answered", 1), "service")],
    "twice": [(in_round("ordered", 1), "serverapp"), (in_round("ordered", 2), "superlink")],
}


def play(federation: Deployment, name: str) -> Study:
    """One schedule: at each moment somebody dies, and the books are looked at as they lie there."""
    study = begun(federation, name)
    for number, (moment, victim) in enumerate(SCHEDULES[name]):
        if number and SCHEDULES[name][number - 1][1] == "serverapp":
            assert not study.go_on()  # nobody conducts the run: its next moment comes after `run --resume`
        sharp(lambda moment=moment: moment(study))
        kill(federation, victim)
        study.check()
        if victim in SITES:
            federation.start_node(victim)
    study.finish()
    study.check_end()
    return study


@pytest.mark.slow
def test_a_node_and_then_the_superlink_are_killed_in_one_run(federation: Deployment) -> None:
    study = begun(federation, "quick")
    sharp(study.gathering)
    kill(federation, "b")
    study.check()
    federation.start_node("b")
    sharp(lambda: study.answered(1))
    kill(federation, "superlink")
    study.check()
    study.finish()
    study.check_end()


@pytest.mark.slow
def test_a_node_that_died_over_an_order_is_in_that_round_after_all(tmp_path: Path, tiny_base: Path) -> None:
    """No site may be missing here, and an order is waited for longer than a node takes to come back."""
    with deployed(tmp_path, tiny_base, answer_seconds=100.0) as federation:
        federation.start_service()
        federation.start_nodes()
        study = begun(federation, "comes-back")
        sharp(lambda: study.ordered(2))
        kill(federation, "b")
        federation.start_node("b")
        study.finish()
        study.check_end()
    rounds = [event for event in read_progress(study.folder)[0] if isinstance(event, RoundProgress)]
    assert [event.survivors for event in rounds] == [3] * 3
    assert study.resumes == 0
    assert rounds[1].seconds < 90


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_whatever_is_killed_whenever_the_run_ends_and_the_books_cover_it(federation: Deployment, name: str) -> None:
    play(federation, name)
