"""One plan at one hospital, from its files to a node that can answer: the slow part, done once and kept in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.charges import Charges
from client.config import SiteConfig
from client.data.checks import check_records
from client.node import SiteNode
from client.secagg import SiteHalf
from client.session import SessionBook
from client.standing import Witness
from client.training.choice import build_trainer
from client.training.dp_step import TrainingSet
from client.training.self_test import check_gradients
from common.adapters.fitness import refuse_unfit_architecture
from common.audit_events import MessageOut
from common.base_model import load_base
from common.errors import DataError, IntegrityError, Problem
from common.files import sync_folder
from common.findings import Finding
from common.plan import Plan
from common.private_files import PRIVATE_FOLDER
from common.randomness import RandomSource, SecretSource
from common.records.sources import read_usable_records
from common.trainable import TrainableModel

_log = structlog.get_logger()
_HINT = "`cloister-site data check --plan` says which; nothing about it is sent"

Say = Callable[[str], None]
MakeSource = Callable[[], RandomSource]


@dataclass(frozen=True, eq=False, repr=False)
class StudyParts:
    """What a study is opened from.

    Attributes:
        plan: Accepted by policy and ledger.
        config: The hospital's own settings.
        identity: The site's key.
        base: Folder of the plan's base; its files had the plan's hashes.
        folder: The run's own folder; its parent must exist.
        begun: Whether the ledger says that a round of this plan was begun, so that a missing book is a lost one.
        witness: Told of every charge, answer and agreement, and asked when the book is opened.
        record: Told of every message before it leaves.
        say: Told what is being done, for a person who waits.
        admit: Asked with d before a record is read; sets the plan's cost aside, or raises where the site does not take
            part.
        make_source: Randomness of draws and noise; tests alone give another than the operating system's.
    """

    plan: Plan
    config: SiteConfig
    identity: Ed25519PrivateKey
    base: Path
    folder: Path
    begun: bool
    witness: Witness
    record: Callable[[MessageOut], object]
    say: Say
    admit: Callable[[int], None]
    make_source: MakeSource = SecretSource


def open_study(parts: StudyParts) -> SiteNode:
    """Open the books, load the base, check the gradients, and read the records, in this order.

    Guarantees:
        Books come first: a run whose book or session was lost, damaged or put back never gets as far as a record. The
        per-record gradients of this very model agreed with a plain loop. Only then is it asked whether the site takes
        part in a plan of so many trained values, and only after that is a record read; what goes wrong before costs
        nothing. The base has an architecture that keeps records apart, an embedding for every id of its tokenizer, and
        positions for the plan's longest text; a record that it fails on all the same adds nothing.

        Whether this raises does not depend on what a record says: a coordinator that chooses the plan's labels would
        otherwise learn from a refusal whether somebody has one that the plan leaves out.

    Edge cases:
        Rows that do not fit the plan add nothing, and a site without any that fits sends noise alone. A warning in this
        site's own log says so; whoever approves the plan is shown the same before.

    Raises:
        DataError: When the hospital's set-up does not fit, as `read_usable_records` says, or the plan protects patients
            and site.toml names no patient column; it names files and columns, no record.
        IntegrityError: When the base is not the plan's, a book is unfit, or the gradients are wrong.
        RollbackError: When the book is older than the ledger.
        CloisterError: What `admit` raises.
    """
    plan, config = parts.plan, parts.config
    parts.folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    sync_folder(parts.folder.parent)
    charges = Charges(parts.folder, plan, config.name, must_exist=parts.begun, witness=parts.witness)
    half = _half(parts) if plan.masked else None
    parts.say("loading the base model")
    model = _open_model(parts)
    parts.say("checking per-record gradients against a plain loop")
    check_gradients(model)
    parts.admit(model.spec.dimension)
    parts.say("reading the records and computing the frozen layers")
    trainer = build_trainer(plan, model, _training_set(parts, model), parts.make_source())
    return SiteNode(
        plan,
        trainer,
        charges,
        half,
        dimension=model.spec.dimension,
        basis_dimension=model.basis_spec.dimension,
        record=parts.record,
    )


def _half(parts: StudyParts) -> SiteHalf:
    book = SessionBook(parts.folder, parts.plan.digest, parts.config.name)
    least = parts.config.policy.least_threshold
    return SiteHalf(parts.config.name, parts.plan, parts.identity, book, own_minimum=least)


def _open_model(parts: StudyParts) -> TrainableModel:
    base = load_base(parts.base, parts.plan.base.name, parts.config.compute)
    if base.identity != parts.plan.base:
        raise IntegrityError(
            f"base model {parts.plan.base.name} changed while it was loaded", hint="keep others out of its folder"
        )
    refuse_unfit_architecture(base.encoder, parts.plan.adapter)
    return TrainableModel(base, parts.plan, parts.config.compute)


def _training_set(parts: StudyParts, model: TrainableModel) -> TrainingSet:
    config, plan = parts.config, parts.plan
    if plan.privacy.unit == "patient" and config.data.columns.patient is None:
        rule = "the plan protects patients, and site.toml names no column that says whose a row is"
        raise DataError(rule, (Problem("data.columns.patient", "is missing", hint="name the patient column"),))
    reading = read_usable_records(config.train_files, config.data.columns, plan.task.labels)
    warn_of_unfit(reading.left_out, check_records(reading.records, plan.task.labels, plan.privacy.unit))
    return TrainingSet.of(reading.records, model, plan.privacy.unit)


def warn_of_unfit(left_out: int, findings: tuple[Finding, ...]) -> None:
    """Tell this site's own log what does not fit, in a number; nothing follows from it.

    Args:
        left_out: Rows that add nothing.
        findings: What a check says about the others.
    """
    failed = [finding for finding in findings if finding.level == "fail"]
    if left_out or failed:
        _log.warning("records do not fit the plan", rows_left_out=left_out, checks_failed=len(failed), hint=_HINT)
