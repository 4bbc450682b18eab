"""A coordinator's home that was made by the commands, and a SuperLink that is played."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import structlog

import server.commands.runs
from common.enrolment import write_join_request
from common.moments import current_moment
from common.signed_plan import SignedPlan
from server.cli import main
from server.config import load_coordinator_config
from server.enrolment import enrol, enrolled
from server.home import CoordinatorHome
from server.progress import Progress
from server.runs import Run, run_of
from server.signed_plans import issue_plan
from tests.enrolment_play import make_join_request
from tests.held_lock import held
from tests.plans import make_plan


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Call the command in this process, as from a pipe of 100 columns."""
    for name in ("CLOISTER_DEBUG", "FORCE_COLOR", "NO_COLOR", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("CLOISTER_COORDINATOR_HOME", str(tmp_path / "coordinator"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["cloister-coordinator", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    yield call
    structlog.reset_defaults()  # main() sends the log to this test's stderr, which ends with the test


@pytest.fixture
def home(cli, tmp_path) -> CoordinatorHome:
    done = cli("init", "--name", "sepsis", "--address", "127.0.0.1:9443")
    assert done.code == 0, done.err
    return CoordinatorHome(tmp_path / "coordinator")


@pytest.fixture
def sites(home) -> tuple[str, ...]:
    """Three sites that are enrolled."""
    for name in ("north", "south", "west"):
        enrol(home, write_join_request(make_join_request(name)))
    return ("north", "south", "west")


@pytest.fixture
def signed(home, sites) -> SignedPlan:
    """A plan for them, signed without a base being there."""
    roster = {site.name: site.public for site in enrolled(home)}
    plan = make_plan(
        mode="distributed",
        local_steps=1,
        sites=3,
        roster=roster,
        secure_aggregation={"masked": True, "tolerated_dropouts": 0},
    )
    return issue_plan(home, load_coordinator_config(home.config), plan, current_moment())


@dataclass
class PlayedSuperLink:
    """As much of the Control API as runs need; what its run tells is up to the test."""

    run: Run
    tells: tuple[object, ...] = ()
    status: str = "running"
    then: Callable[[], None] = lambda: None
    started: list[dict[str, str]] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)

    def start_run(self, config):
        self.started.append(dict(config))
        for event in self.tells:
            Progress(self.run.folder).tell(event)
        self.then()
        return 7

    def run_status(self, run_id):
        assert run_id == 7
        return self.status

    def stop_run(self, run_id):
        self.stopped.append(run_id)
        return True


@pytest.fixture
def superlink(monkeypatch, home, signed):
    """A SuperLink behind a running service."""
    played = PlayedSuperLink(run_of(home, signed))
    monkeypatch.setattr(server.commands.runs, "_control", lambda _: played)
    with held(home.lock):
        yield played
