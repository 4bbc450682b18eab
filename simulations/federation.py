"""Real nodes and the real coordinator, joined by a simulated network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.charges import Charges
from client.node import SiteNode
from client.secagg import SiteHalf
from client.session import SessionBook
from client.training.choice import Trainer, build_trainer
from client.training.dp_step import TrainingSet
from common.adapters.lora import refactor
from common.files import write_durably
from common.messages import Order
from common.plan import Plan
from common.randomness import RandomSource, SecretSource
from common.trainable import TrainableModel
from server.checkpoint import CHECKPOINT_NAME
from server.run import Evaluator, Observer, Refresh, RunOutcome, RunSetup, run
from server.state import GlobalModel
from simulations.network import Faults, SimulatedNetwork, Traffic
from simulations.view import SilentView, View
from simulations.world import Identities

MakeSource = Callable[[], RandomSource]

SITES_NAME = "sites"
"""Folder of the sites' own files, in the run folder."""

_BEGUN_NAME = ".begun"


@dataclass(frozen=True, repr=False)
class Setting:
    """Who takes part in a simulated run, and where its books are kept.

    Attributes:
        plan: The finished plan; `plan.sites` names follow.
        model: The one model that all virtual parties share.
        hospitals: Training set of each site, by name.
        evaluator: The coordinator's public validation set.
        folder: Run folder; must exist.
        faults: How bad the network is.
        seed: Public seed of the faults.
        identities: Of each site, by name; needed where the plan masks.
        make_source: Randomness of a site; tests alone give another than the operating system's.
    """

    plan: Plan
    model: TrainableModel
    hospitals: Mapping[str, TrainingSet]
    evaluator: Evaluator
    folder: Path
    faults: Faults = field(default_factory=Faults)
    seed: int = 0
    identities: Identities = field(default_factory=dict)
    make_source: MakeSource = SecretSource


@dataclass(frozen=True, eq=False)
class Federated:
    """What a simulated run gave, and what it took.

    Attributes:
        outcome: The coordinator's result.
        traffic: What the network carried.
        steps_charged: DP-SGD steps in each site's book.
        local_seconds: Time spent inside the sites' training.
        seconds: Time of the whole run.
    """

    outcome: RunOutcome
    traffic: Traffic
    steps_charged: Mapping[str, int]
    local_seconds: float
    seconds: float


class _TimedTrainer:
    """A trainer that knows how long it took."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.seconds = 0.0

    def train(self, order: Order) -> npt.NDArray[Any]:
        """As `client.node.Trainer.train`."""
        start = time.perf_counter()
        try:
            return self._trainer.train(order)
        finally:
            self.seconds += time.perf_counter() - start


def federate(
    setting: Setting, view: View | None = None, observer: Observer | None = None, *, resume: bool = False
) -> Federated:
    """Run a plan over virtual hospitals, in this process.

    Args:
        setting: Who takes part.
        view: Shown which site is at work.
        observer: Told of each finished round.
        resume: Go on from the folder's checkpoint and books.

    Raises:
        CloisterError: As `server.run.run`.
    """
    start = time.perf_counter()
    trainers, books = _trainers(setting), _books(setting)
    network = SimulatedNetwork(
        _watched(_nodes(setting, trainers, books), view or SilentView()), setting.faults, setting.seed
    )
    setup = RunSetup(
        plan=setting.plan,
        sites=tuple(setting.hospitals),
        transport=network,
        start=GlobalModel(setting.model.start.astype(np.float64), np.zeros(0, dtype=np.float32)),
        groups=setting.model.groups,
        evaluator=setting.evaluator,
        refresh=_refresh(setting.model),
        observer=observer or (lambda _: None),
    )
    outcome = run(setup, setting.folder, resume=resume)
    charged = {name: book.steps_charged for name, book in books.items()}
    local = sum(trainer.seconds for trainer in trainers.values())
    return Federated(outcome, network.traffic, charged, local, time.perf_counter() - start)


def _trainers(setting: Setting) -> dict[str, _TimedTrainer]:
    return {
        name: _TimedTrainer(build_trainer(setting.plan, setting.model, data, setting.make_source()))
        for name, data in setting.hospitals.items()
    }


def _books(setting: Setting) -> dict[str, Charges]:
    """Each site's book; once all have been begun, a missing one is a lost one, whatever else was lost with it."""
    folder = setting.folder / SITES_NAME
    marker = folder / _BEGUN_NAME
    begun = marker.exists() or (setting.folder / CHECKPOINT_NAME).exists()
    books = {}
    for name in setting.hospitals:
        (folder / name).mkdir(parents=True, exist_ok=True)
        books[name] = Charges(folder / name, setting.plan, name, must_exist=begun)
    write_durably(marker, b"")
    return books


def _nodes(
    setting: Setting, trainers: Mapping[str, _TimedTrainer], books: Mapping[str, Charges]
) -> dict[str, SiteNode]:
    return {name: _node(setting, trainers[name], books[name]) for name in setting.hospitals}


def _node(setting: Setting, trainer: _TimedTrainer, book: Charges) -> SiteNode:
    return SiteNode(
        setting.plan,
        trainer,
        book,
        _half(setting, book.site) if setting.plan.masked else None,
        dimension=setting.model.spec.dimension,
        basis_dimension=setting.model.basis_spec.dimension,
    )


def _half(setting: Setting, site: str) -> SiteHalf:
    session = SessionBook(setting.folder / SITES_NAME / site, setting.plan.digest, site)
    return SiteHalf(site, setting.plan, setting.identities[site], session)


def _watched(nodes: Mapping[str, SiteNode], view: View) -> dict[str, Callable[[bytes], bytes]]:
    """Each node's one door, with the view told when it is used."""

    def door(name: str, node: SiteNode) -> Callable[[bytes], bytes]:
        def answer(request: bytes) -> bytes:
            view.site_started(name)
            reply = node.answer(request)
            view.site_finished(name)
            return reply

        return answer

    return {name: door(name, node) for name, node in nodes.items()}


def _refresh(model: TrainableModel) -> Refresh:
    """The server's refactoring; where the A matrices were never changed, they are those of the plan's seed."""
    first = model.basis()

    def refresh(weights: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return refactor(weights, basis if basis.size else first, model.spec, model.basis_spec)

    return refresh


def hospital_sets(names: Sequence[str], sets: Sequence[TrainingSet]) -> dict[str, TrainingSet]:
    """Training sets by site name."""
    return dict(zip(names, sets, strict=True))
