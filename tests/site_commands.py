"""A site that is set up, enrolled and run by its commands, and a coordinator that signs plans for it."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import structlog

from client.cli import main
from client.home import SiteHome
from common.enrolment import federation_id, fingerprint
from common.identity import new_identity, public_name
from common.key_files import read_identity
from common.moments import current_moment
from common.signed_plan import SignedPlan, sign_plan, write_signed_plan
from server.enrolment import enrol, enrolled
from server.home import CoordinatorHome
from server.initialise import initialise
from tests.plans import make_plan

FEDERATION = "sepsis"
ADDRESS = "127.0.0.1:9443"


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str


def command(*words: str | Path) -> Ended:
    """Give a command through its outer door, in this process, where nobody can be asked."""
    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv, code = ["cloister-site", *map(str, words)], 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.argv = argv
        structlog.reset_defaults()
    return Ended(code, out.getvalue(), err.getvalue())


@dataclass
class Play:
    """A site's home and its coordinator's.

    Attributes:
        folder: Where both are.
    """

    folder: Path
    site: SiteHome = field(init=False)
    coordinator: CoordinatorHome = field(init=False)

    def __post_init__(self) -> None:
        self.site = SiteHome(self.folder / "site")
        self.coordinator = CoordinatorHome(self.folder / "coordinator")
        initialise(self.coordinator, FEDERATION, ADDRESS)

    @property
    def identity(self):
        return read_identity(self.coordinator.identity_key)

    @property
    def fingerprint(self) -> str:
        return fingerprint(public_name(self.identity))

    def __call__(self, *words: str | Path) -> Ended:
        """Give a command to the site."""
        return command(*words, "--home", self.site.path)

    def init(self, *words: str) -> Ended:
        return self("init", "--name", "north", *words)

    def invite(self) -> Path:
        """Ask, and be enrolled: the invitation's file."""
        path = self.folder / "invitation"
        path.write_text(enrol(self.coordinator, self("request").out))
        return path

    def join(self) -> Play:
        """Everything up to the pinned coordinator."""
        assert self.init().code == 0
        assert self("accept", self.invite(), "--fingerprint", self.fingerprint).code == 0
        return self

    def sign(self, name: str = "study", **changes) -> tuple[SignedPlan, Path]:
        """A signed plan that fits a new site's limits, but for the changes."""
        roster = {site.name: site.public for site in enrolled(self.coordinator)}
        roster |= {other: public_name(new_identity()) for other in ("east", "south", "west")}
        values = {
            "name": name,
            "mode": "distributed",
            "local_steps": 1,
            "rounds": 200,
            "sites": 4,
            "minimum_sites": 3,
            "roster": roster,
            "privacy": {"sampling_rate": 0.05, "noise_multiplier": 1.2, "divisor": 20.0},
            "secure_aggregation": {"masked": True},
        }
        for key, value in changes.items():
            values[key] = values[key] | value if isinstance(values.get(key), dict) else value
        plan = make_plan(**values)
        now = current_moment()
        federation = federation_id(FEDERATION, public_name(self.identity))
        signed = sign_plan(plan, federation, now, now + timedelta(days=9), self.identity)
        path = self.folder / f"{name}.plan"
        path.write_bytes(write_signed_plan(signed))
        return signed, path

    def approved(self, **changes) -> SignedPlan:
        """A plan that was reviewed and approved."""
        signed, path = self.sign(**changes)
        assert self("review", path).code == 0
        assert self("approve", signed.digest, "--yes").code == 0  # there are no records yet
        return signed
