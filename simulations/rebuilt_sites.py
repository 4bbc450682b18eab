"""Virtual hospitals rebuilt from a run folder, in any process that can read it.

What takes long, the base model and a hospital's texts through its frozen layers, is done once a process. What must
never be older than the disk, a hospital's books, is opened anew for each request.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from client.keys import load_or_create_identity
from client.training.choice import build_trainer
from client.training.dp_step import TrainingSet
from common.base_model import Base
from common.errors import IntegrityError
from common.plan import Plan
from common.randomness import SecretSource
from common.trainable import TrainableModel
from simulations.federation import SITES_NAME, TimedTrainer, open_node
from simulations.run_folder import alone, read_plan, read_scenario
from simulations.scenario import Scenario
from simulations.world import load_splits, open_base, site_names


@dataclass(frozen=True, repr=False)
class Answer:
    """What a site sent back, and the seconds of training that it took."""

    frame: bytes
    seconds: float


class RebuiltSites:
    """The hospitals of one run, brought to life when they are asked.

    Guarantees:
        Which process serves a request changes no answer: nothing that a request leaves behind is kept in memory alone,
        and of all processes that see the folder one at a time serves a site. A request waits while another process,
        perhaps one that its run has given up, still serves its site.

    Args:
        folder: A run folder whose plan was written and whose books were begun.

    Raises:
        IntegrityError: When base or plan are not those that the run was started with.
        CloisterError: As `simulations.world`, when data or base cannot be read here.
    """

    def __init__(self, folder: Path) -> None:
        scenario = read_scenario(folder)
        self._folder, self._plan = folder, read_plan(folder)
        hospitals = load_splits(scenario).hospitals
        self._records = dict(zip(site_names(len(hospitals)), hospitals, strict=True))
        self._model = TrainableModel(_base_of(self._plan, scenario, folder), self._plan, scenario.compute)
        self._trainers: dict[str, TimedTrainer] = {}

    def answer(self, site: str, request: bytes) -> Answer:
        """Serve one request as the site's node does.

        Raises:
            IntegrityError: When a book of the site is damaged or lost, or the run has no such site.
        """
        if site not in self._records:
            raise IntegrityError(f"{self._folder} has no site {site}")
        folder = self._folder / SITES_NAME / site
        with alone(folder, wait=True):
            trainer = self._trainer(site)
            identity = load_or_create_identity(folder) if self._plan.masked else None
            before = trainer.seconds
            frame = open_node(self._plan, self._model, trainer, folder, identity).answer(request)
            return Answer(frame, trainer.seconds - before)

    def _trainer(self, site: str) -> TimedTrainer:
        if site not in self._trainers:
            data = TrainingSet.of(self._records[site], self._model, self._plan.privacy.unit)
            self._trainers[site] = TimedTrainer(build_trainer(self._plan, self._model, data, SecretSource()))
        return self._trainers[site]


def _base_of(plan: Plan, scenario: Scenario, folder: Path) -> Base:
    # The adapted base lies beside the run folder; `output` may have been relative to where the run was started.
    base = open_base(scenario.model_copy(update={"output": str(folder.parent)}), _refuse_to_train)
    if base.identity != plan.base:
        raise IntegrityError(
            f"the base model found here is not the one of the plan in {folder}",
            hint="every machine of the cluster must see the same base and the same run folder",
        )
    return base


def _refuse_to_train(_done: int, _total: int) -> None:
    raise IntegrityError(
        "the public start of the base is not where the run folder is",
        hint="run from the folder in which the run was started, and share that folder with every machine",
    )
