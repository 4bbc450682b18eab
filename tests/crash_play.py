"""A whole study whose parties die at named moments, leave what is on the disk, and are opened anew from it.

Training is a formula, for the ledger takes no plan without noise: one coordinate is fresh each time records are
touched, as noise is, and tells two answers of one round apart; all others hang on site, round and model alone, as with
noise off, and are compared bit for bit.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import client.study
import server.conduct
from client.opening import OpenSite, open_site
from client.status import StatusBoard
from common.base_model import load_base
from common.compute import ComputeConfig
from common.randomness import SecretSource
from common.signed_plan import SignedPlan
from common.trainable import TrainableModel
from common.wire import kind_of
from server.launch import launch
from server.pacing import Patience
from server.results import RunReport
from tests.federation_play import DRAFT, Federation, MakeSource, make_federation
from tests.kills import SITES, Kill, KilledError, Killer, hook_disk
from tests.ledger_watch import ROUNDS, FormulaTrainer, Watch, body_of

PLAN = {**DRAFT, "rounds": ROUNDS, "secure_aggregation": {**DRAFT["secure_aggregation"], "session_rounds": 1}}


class MortalNetwork:
    """Carries sealed orders to sites that may die of them, and answers to a coordinator that may."""

    def __init__(self, lives: Lives) -> None:
        self._lives = lives
        self.patience = Patience(1.0, 1, 1.0)

    def exchange(self, orders: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """As `common.transport.Transport`."""
        killer = self._lives.killer
        for site in orders:
            request = orders[site]
            killer(f"{kind_of(body_of(request)).__name__} sent", "before")
            answer = self._delivered(site, request)
            if answer is not None:
                killer(f"{kind_of(body_of(answer)).__name__} came", "before")
                yield site, answer

    def _delivered(self, site: str, request: bytes) -> bytes | None:
        """The answer, unless the site died before it was sent."""
        lives, said = self._lives, []
        while True:
            try:
                lives.ask(site, request, said)
                break
            except KilledError:
                if lives.killer.dead != (site,):
                    raise
                lives.end(site)
                if not lives.killer.again:
                    break
        return said[-1] if said else None


@dataclass
class Lives:
    """A federation, and what has to be thrown away when somebody dies."""

    federation: Federation
    signed: SignedPlan
    killer: Killer
    watch: Watch
    make_source: MakeSource = SecretSource
    opened: dict[str, tuple[ExitStack, OpenSite]] = field(default_factory=dict)
    asked: dict[str, bytes] = field(default_factory=dict)
    lived: bool = False

    def ask(self, site: str, request: bytes, said: list[bytes]) -> None:
        """Have a site answer; what it has sent stands in `said`, even if it dies right after."""
        self.asked[site] = request
        with self.killer.inside(site):
            there = self.site(site).site
            answer = there.answer(request)
            assert answer is not None
            kind = kind_of(body_of(answer)).__name__
            self.killer(f"{kind} sent", "before")
            said.append(answer)
            self.watch.see(site, request, answer)
            self.killer(f"{kind} sent", "after")
            if there.fatal is not None:
                raise there.fatal

    def site(self, name: str) -> OpenSite:
        """A site, opened from what is on its disk."""
        if name not in self.opened:
            stack, home = ExitStack(), self.federation.sites[name]
            self.opened[name] = stack, stack.enter_context(open_site(home, StatusBoard(home.status), self.make_source))
        return self.opened[name][1]

    def end(self, *names: str) -> None:
        """Sites are gone, with all that they had in memory; their homes are as at the moment of the kill."""
        for name in names:
            stack, _ = self.opened.pop(name, (ExitStack(), None))
            stack.close()
        self.killer.bury()

    def run(self) -> RunReport:
        """Live again and again until the run is over."""
        while (report := self.live()) is None:
            pass
        return report

    def live(self, *, wait_for_all: bool = True) -> RunReport | None:
        """One life of the coordinator; None when it was killed."""
        home, digest, resume = self.federation.coordinator, self.signed.digest, self.lived
        self.lived = True
        try:
            return launch(home, digest, lambda *_: MortalNetwork(self), resume=resume, wait_for_all=wait_for_all)
        except KilledError:
            self.end(*(SITES if len(self.killer.dead) > 1 else ()))
            return None

    def finish(self) -> None:
        """The last request once more, to each site as it is and after a restart; then every book once more."""
        for name in SITES:
            for _ in range(2):
                self.ask(name, self.asked[name], [])
                self.end(name)
            self.watch.check(name)
            self.watch.check_audit(name)
        self.watch.check_repeats()


@dataclass
class Stage:
    """A federation of a moment before its first run, of which every schedule gets a fresh copy in the same place."""

    folder: Path
    kept: Path
    federation: Federation
    signed: SignedPlan
    model: object

    @contextmanager
    def lives(
        self, kills: Sequence[Kill] = (), kept: Path | None = None, make_source: MakeSource | None = None
    ) -> Iterator[Lives]:
        """Everybody's homes as they were before the run, or in another kept state, and hooks at every moment.

        With a source of randomness training is real, else a formula.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(kept or self.kept, self.folder, symlinks=True)
        killer = Killer(self.folder, kills)
        watch = Watch(self.federation.sites, self.signed.digest)
        lives = Lives(self.federation, self.signed, killer, watch, make_source or SecretSource)
        with pytest.MonkeyPatch.context() as patch:
            hook_disk(patch, killer)
            stub_report(patch)
            if make_source is None:
                stub_training(patch, self.model, watch)
            try:
                yield lives
            finally:
                lives.end(*SITES)

    def play(self, kills: Sequence[Kill] = (), make_source: MakeSource | None = None) -> tuple[Lives, RunReport]:
        """One schedule, from beginning to end."""
        with self.lives(kills, make_source=make_source) as lives:
            report = lives.run()
            assert lives.killer.rest() < max(1, len(kills)), "nobody died"
            moments = lives.killer.moments.copy()
            lives.finish()
        lives.killer.moments = moments
        return lives, report


def make_stage(folder: Path, base: Path) -> Stage:
    """Enrol four sites and sign a plan; three have the base, and `b` is handed it in chunks."""
    work = folder / "work"
    work.mkdir()
    federation = make_federation(work, base, SITES)
    for name in ("a", "c", "d"):
        config = federation.sites[name].config
        config.write_text(f"{config.read_text()}\n[base]\nlocal = [{json.dumps(str(base))}]\n")
    signed = federation.sign(PLAN)
    shutil.copytree(work, folder / "kept", symlinks=True)
    model = TrainableModel(load_base(base, "tiny", ComputeConfig()), signed.plan, ComputeConfig())
    return Stage(work, folder / "kept", federation, signed, model)


def stub_training(patch: pytest.MonkeyPatch, model, watch: Watch) -> None:
    """Leave the books and take the slow parts: base, gradients and records."""
    patch.setattr(client.study, "_open_model", lambda parts: model)
    patch.setattr(client.study, "check_gradients", lambda _: 0.0)
    patch.setattr(client.study, "_training_set", lambda parts, _: parts.config.name)
    patch.setattr(
        client.study, "build_trainer", lambda _, model, site, __: FormulaTrainer(site, model.spec.dimension, watch)
    )
    patch.setattr(server.conduct, "load_base", lambda *_: None)
    patch.setattr(server.conduct, "TrainableModel", lambda *_: model)


def stub_report(patch: pytest.MonkeyPatch) -> None:
    """Draw no picture, and wait for nobody."""
    patch.setattr("server.report.learning_curve", lambda *_: b"a picture")
    patch.setattr(time, "sleep", lambda _: None)
