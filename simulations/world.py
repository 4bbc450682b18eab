"""Everything that exists before round 1: the data shared out, the finished plan, the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.data.splits import split_by_patient
from common.base_files import find_base
from common.base_model import Base, load_base
from common.errors import ConfigError, DataError, Problem
from common.identity import new_identity, public_name
from common.plan import BaseIdentity, Plan, PlanDraft
from common.records.records import Records
from common.records.sources import read_records
from common.trainable import TrainableModel
from server import planning
from simulations.notes import generate_notes
from simulations.partition import partition_patients
from simulations.public_start import OnStep, PublicStart, public_base
from simulations.scenario import FilesConfig, Scenario

Identities = Mapping[str, Ed25519PrivateKey]
MakeIdentities = Callable[[Iterable[str]], Identities]

BASES_NAME = "bases"
"""Folder of the adapted bases, beside the run folders."""


@dataclass(frozen=True, repr=False)
class Splits:
    """Who holds what: one private part a hospital, and two public sets."""

    hospitals: tuple[Records, ...]
    validation: Records
    test: Records


@dataclass(frozen=True, repr=False)
class World:
    """A scenario come to life."""

    scenario: Scenario
    plan: Plan
    base_name: str
    model: TrainableModel
    splits: Splits
    identities: Identities = field(default_factory=dict)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the hospitals, in order."""
        return site_names(len(self.splits.hospitals))


def site_names(count: int) -> tuple[str, ...]:
    """`hospital-1` and so on, with as many digits as the count needs."""
    width = len(str(count))
    return tuple(f"hospital-{number:0{width}d}" for number in range(1, count + 1))


def load_splits(scenario: Scenario) -> Splits:
    """Read or make the data and share it out by patient.

    Raises:
        DataError: When the files cannot be read or do not fit.
    """
    if scenario.data.files is not None:
        return _from_files(scenario, scenario.data.files)
    if scenario.data.notes is None:
        raise ValueError("a scenario has files or notes")
    hospitals, validation, test = generate_notes(scenario.data.notes, scenario.seed)
    return Splits(tuple(hospitals), validation, test)


def _from_files(scenario: Scenario, files: FilesConfig) -> Splits:
    sets = _read_sets(files, scenario.plan.task.labels)
    train, validation = sets["train"], sets.get("validation")
    if validation is None:
        train, validation = split_by_patient(train, files.validation_fraction, scenario.seed)
    parts = partition_patients(train, scenario.hospitals.count, scenario.seed, scenario.hospitals.skew)
    return Splits(tuple(parts), validation, sets["test"])


def _read_sets(files: FilesConfig, labels: tuple[str, ...]) -> dict[str, Records]:
    """Rows of each set that has files; the problems of all sets at once."""
    folder = Path(files.folder)
    if not folder.is_dir():
        raise DataError(f"data folder {folder} does not exist", hint="--data FOLDER says where the files are")
    sets: dict[str, Records] = {}
    problems: list[Problem] = []
    for name, listed in (("train", files.train), ("test", files.test), ("validation", files.validation)):
        try:
            sets |= {name: read_records([folder / file for file in listed], files.columns, labels)} if listed else {}
        except DataError as error:
            problems += error.problems
    if problems:
        count = len(problems)
        raise DataError(f"the data cannot be used: {count} problem{'s' if count != 1 else ''}", tuple(problems))
    return sets


def open_base(scenario: Scenario, on_step: OnStep | None = None) -> Base:
    """Load the scenario's base model under its speed settings, with its public start where it wants one.

    Args:
        scenario: What to load.
        on_step: Told about the training of a public start that is not there yet; it takes minutes.

    Raises:
        ConfigError: When there is no such base, or no such device.
    """
    if scenario.compute.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device is cuda, but torch finds no GPU here", hint='set compute.device = "cpu"')
    if scenario.compute.threads:
        torch.set_num_threads(scenario.compute.threads)
    folder, name = find_base(scenario.base), scenario.base_name
    if scenario.public_start is not None:
        start = PublicStart(folder, name, scenario.public_start, scenario.plan.task, scenario.compute)
        # Another name too: an adapter of this base put on the original one would load, and be wrong.
        folder, name = public_base(start, Path(scenario.output) / BASES_NAME, on_step), f"{name}-public-start"
    return load_base(folder, name, scenario.compute)


def draw_identities(sites: Iterable[str]) -> Identities:
    """A fresh identity for each virtual hospital, as real ones draw theirs."""
    return {site: new_identity() for site in sites}


def finish_plan(draft: PlanDraft, sites: int, base: BaseIdentity, identities: Identities | None = None) -> Plan:
    """As `server.planning.finish_plan`, with the public halves of virtual hospitals' identities as the roster."""
    roster = {site: public_name(identity) for site, identity in (identities or {}).items()} if draft.masked else {}
    return planning.finish_plan(draft, sites, base, roster)


def build_world(
    scenario: Scenario, on_step: OnStep | None = None, make_identities: MakeIdentities = draw_identities
) -> World:
    """Data, plan and model of a scenario, in this order, so that unfit data are reported before a model is loaded.

    Args:
        scenario: What to build.
        on_step: Told about the training of a public start.
        make_identities: Where the hospitals' identities come from; a resumed run has them on disk.
    """
    splits = load_splits(scenario)
    base = open_base(scenario, on_step)
    sites = len(splits.hospitals)
    identities = make_identities(site_names(sites))
    plan = finish_plan(scenario.plan, sites, base.identity, identities)
    model = TrainableModel(base, plan, scenario.compute)
    return World(scenario, plan, base.identity.name, model, splits, identities)
