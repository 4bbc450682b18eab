"""Real nodes and the real coordinator, joined by a simulated network.

Where the nodes live is an engine's business: here they live in this process, in `simulations.flower_run` in the workers
of Flower's simulation engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

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
from simulations.network import Carrier, Faults, OneByOne, SimulatedNetwork, Traffic
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
        hospitals: Training set of each site, by name; none where the engine's own processes prepare them.
        evaluator: The coordinator's public validation set.
        folder: Run folder; must exist.
        faults: How bad the network is.
        seed: Public seed of the faults.
        identities: Of each site, by name; needed where the plan masks.
        make_source: Randomness of a site; tests alone give another than the operating system's.
        sites: Names of the sites; where left out, those of `hospitals`.
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
    sites: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.sites:
            object.__setattr__(self, "sites", tuple(self.hospitals))


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


@dataclass(frozen=True, eq=False)
class Coordinated:
    """What the coordinator's part of a run gave."""

    outcome: RunOutcome
    traffic: Traffic


class Engine(Protocol):
    """Where the nodes of a run live, and how messages get there."""

    in_process: bool
    """Whether the nodes live here, so that the setting must hold their training sets."""

    def serve(
        self, setting: Setting, view: View, coordinate: Callable[[Carrier], Coordinated]
    ) -> tuple[Coordinated, float]:
        """Bring the nodes to life while the coordinator does its part.

        Args:
            setting: Who takes part; the books have been begun.
            view: To be shown which site is at work.
            coordinate: The coordinator's part; to be called once.

        Returns:
            What `coordinate` gave, and the seconds spent inside the sites' training.
        """
        ...


class TimedTrainer:
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


class InProcess:
    """The engine that keeps all nodes in this process and asks one after the other."""

    in_process = True

    def serve(
        self, setting: Setting, view: View, coordinate: Callable[[Carrier], Coordinated]
    ) -> tuple[Coordinated, float]:
        """As `Engine.serve`."""
        trainers = _trainers(setting)
        nodes = {
            name: open_node(setting.plan, setting.model, trainer, site_folder(setting, name), _key(setting, name))
            for name, trainer in trainers.items()
        }
        coordinated = coordinate(OneByOne(_watched(nodes, view)))
        return coordinated, sum(trainer.seconds for trainer in trainers.values())


def federate(
    setting: Setting,
    view: View | None = None,
    observer: Observer | None = None,
    *,
    resume: bool = False,
    engine: Engine | None = None,
) -> Federated:
    """Run a plan over virtual hospitals.

    Args:
        setting: Who takes part.
        view: Shown which site is at work.
        observer: Told of each finished round.
        resume: Go on from the folder's checkpoint and books.
        engine: Where the nodes live; in this process where left out.

    Raises:
        CloisterError: As `server.run.run`.
    """
    start = time.perf_counter()
    _begin_books(setting)

    def coordinate(carrier: Carrier) -> Coordinated:
        network = SimulatedNetwork(carrier, setting.faults, setting.seed)
        outcome = run(_run_setup(setting, network, observer), setting.folder, resume=resume)
        return Coordinated(outcome, network.traffic)

    coordinated, local = (engine or InProcess()).serve(setting, view or SilentView(), coordinate)
    charged = {name: _book(setting, name).steps_charged for name in setting.sites}
    return Federated(coordinated.outcome, coordinated.traffic, charged, local, time.perf_counter() - start)


def _run_setup(setting: Setting, network: SimulatedNetwork, observer: Observer | None) -> RunSetup:
    return RunSetup(
        plan=setting.plan,
        sites=setting.sites,
        transport=network,
        start=GlobalModel(setting.model.start.astype(np.float64), np.zeros(0, dtype=np.float32)),
        groups=setting.model.groups,
        evaluator=setting.evaluator,
        refresh=_refresh(setting.model),
        observer=observer or (lambda _: None),
    )


def site_folder(setting: Setting, site: str) -> Path:
    """Where a site keeps its own files of this run."""
    return setting.folder / SITES_NAME / site


def _begin_books(setting: Setting) -> None:
    """Each site's book; once all have been begun, a missing one is a lost one, whatever else was lost with it."""
    marker = setting.folder / SITES_NAME / _BEGUN_NAME
    begun = marker.exists() or (setting.folder / CHECKPOINT_NAME).exists()
    for name in setting.sites:
        site_folder(setting, name).mkdir(parents=True, exist_ok=True)
        _book(setting, name, begun=begun)
    write_durably(marker, b"")


def _book(setting: Setting, site: str, *, begun: bool = True) -> Charges:
    return Charges(site_folder(setting, site), setting.plan, site, must_exist=begun)


def _trainers(setting: Setting) -> dict[str, TimedTrainer]:
    return {
        name: TimedTrainer(build_trainer(setting.plan, setting.model, data, setting.make_source()))
        for name, data in setting.hospitals.items()
    }


def _key(setting: Setting, site: str) -> Ed25519PrivateKey | None:
    return setting.identities[site] if setting.plan.masked else None


def open_node(
    plan: Plan, model: TrainableModel, trainer: TimedTrainer, folder: Path, identity: Ed25519PrivateKey | None
) -> SiteNode:
    """A site's node, with its books as they stand on disk.

    Args:
        plan: The plan of the run.
        model: What the trainer trains.
        trainer: Of this site.
        folder: The site's own, of the site's name; its book has been begun.
        identity: The site's key; needed exactly where the plan masks.

    Raises:
        IntegrityError: When a book is damaged, lost, or of another plan.
    """
    half = None
    if identity is not None:
        half = SiteHalf(folder.name, plan, identity, SessionBook(folder, plan.digest, folder.name))
    return SiteNode(
        plan,
        trainer,
        Charges(folder, plan, folder.name, must_exist=True),
        half,
        dimension=model.spec.dimension,
        basis_dimension=model.basis_spec.dimension,
    )


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
