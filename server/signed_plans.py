"""The plans that a coordinator has signed, and the folder in which each of them runs."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

from common.enrolment import federation_id
from common.errors import ConfigError, IntegrityError, UsageError
from common.files import write_durably
from common.identity import public_name
from common.key_files import read_identity
from common.plan import Plan
from common.private_files import PRIVATE_FILE, PRIVATE_FOLDER
from common.signed_plan import (
    SIGNED_PLAN_LIMIT_BYTES,
    SignedPlan,
    read_signed_plan,
    sign_plan,
    write_signed_plan,
)
from server.checkpoint import CHECKPOINT_NAME
from server.config import CoordinatorConfig
from server.enrolment import EnrolledSite, enrolled
from server.home import CoordinatorHome
from server.run_files import SIGNED_PLAN_NAME

_BEGINNING = re.compile(r"[0-9a-f]{1,64}")


def issue_plan(home: CoordinatorHome, config: CoordinatorConfig, plan: Plan, now: datetime) -> SignedPlan:
    """Sign a plan and keep it.

    Edge cases:
        A plan that was signed before and is still valid stays as it is, so that every site gets the same bytes.

    Args:
        home: Whose identity signs.
        config: Says for how long.
        plan: The finished plan.
        now: The clock, in UTC, whole seconds.
    """
    path = home.plan(plan.digest)
    if path.exists():
        kept = find_signed_plan(home, plan.digest)
        if kept.is_valid_at(now):
            return kept
    identity = read_identity(home.identity_key)
    federation = federation_id(config.name, public_name(identity))
    signed = sign_plan(plan, federation, now, now + timedelta(days=config.plan_validity_days), identity)
    write_durably(path, write_signed_plan(signed), mode=PRIVATE_FILE)
    return signed


def signed_plans(home: CoordinatorHome) -> tuple[SignedPlan, ...]:
    """Every plan that this coordinator signed, the oldest first.

    Raises:
        IntegrityError: When a file was changed, or is of another coordinator.
    """
    public = public_name(read_identity(home.identity_key))
    found = (_read(path, public) for path in sorted(home.plans.glob("[!.]*.json")))
    return tuple(sorted(found, key=lambda signed: (signed.issued, signed.digest)))


def find_signed_plan(home: CoordinatorHome, digest: str) -> SignedPlan:
    """A plan that this coordinator signed, by its digest or the beginning of it.

    Raises:
        UsageError: When none or several fit.
        IntegrityError: When the file was changed.
    """
    found = sorted(home.plans.glob(f"{digest}*.json")) if _BEGINNING.fullmatch(digest) else []
    if len(found) != 1:
        rule = "no signed plan" if not found else "more than one signed plan"
        raise UsageError(
            f"{rule} has a digest that begins with {digest[:64]!r}", hint="`cloister-coordinator plan list` shows them"
        )
    return _read(found[0], public_name(read_identity(home.identity_key)))


def plan_called(home: CoordinatorHome, text: str) -> SignedPlan:
    """A plan that this coordinator signed, by its digest, the beginning of it, or a file that holds it.

    Raises:
        UsageError: When there is none, or several begin so.
        IntegrityError: When the file holds no signed plan.
    """
    path = Path(text)
    if not path.is_file():
        if not _BEGINNING.fullmatch(text):
            raise UsageError(
                f"there is no file {text[:64]!r}, and no signed plan has a digest that begins so",
                hint="`cloister-coordinator plan list` shows the plans; `plan check PLAN.toml --sign` makes one",
            )
        return find_signed_plan(home, text)
    if path.suffix == ".toml":
        hint = f"`cloister-coordinator plan check {text} --sign` signs it, and writes the file to run"
        raise UsageError(f"{text} is a draft, and a run needs a signed plan", hint=hint)
    with path.open("rb") as stream:
        signed = read_signed_plan(stream.read(SIGNED_PLAN_LIMIT_BYTES + 1))
    return find_signed_plan(home, signed.digest)


def _read(path: Path, public: str) -> SignedPlan:
    signed = read_signed_plan(path.read_bytes())
    if signed.coordinator != public:
        raise IntegrityError(f"{path.name} was signed by another coordinator", hint="remove it, and sign your own")
    return signed


def enough_sites(signed: SignedPlan) -> int:
    """Sites without which no round of a plan can succeed."""
    plan = signed.plan
    return max(plan.parameters.threshold if plan.masked else 1, plan.minimum_sites)


def sites_of(home: CoordinatorHome, signed: SignedPlan) -> tuple[EnrolledSite, ...]:
    """The enrolled sites of a plan's roster.

    Raises:
        ConfigError: When one is not enrolled, or with another key than the roster's.
    """
    known = {site.name: site for site in enrolled(home)}
    for name, public in signed.plan.roster.items():
        if name not in known or known[name].public != public:
            raise ConfigError(
                f"site {name} of the plan's roster is not enrolled with that key",
                hint="enrol it again, or sign a plan for the sites that are enrolled",
            )
    return tuple(known[name] for name in sorted(signed.plan.roster))


def prepare_folder(home: CoordinatorHome, signed: SignedPlan, *, resume: bool) -> Path:
    """The run's folder, made where it is missing.

    Raises:
        UsageError: When it holds finished rounds and `resume` is not set.
        IntegrityError: When it belongs to another plan with the same beginning of its digest.
    """
    folder = home.run(signed.plan.name, signed.digest)
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    kept, document = folder / SIGNED_PLAN_NAME, write_signed_plan(signed)
    if kept.exists() and read_signed_plan(kept.read_bytes()).digest != signed.digest:
        raise IntegrityError(f"{folder} belongs to another plan", hint="move it away")
    if (folder / CHECKPOINT_NAME).exists() and not resume:
        raise UsageError(
            f"{folder} already holds finished rounds of this plan",
            hint="`run --resume` goes on from there; a plan runs once",
        )
    write_durably(kept, document, mode=PRIVATE_FILE)
    return folder
