"""Real processes that are killed at named moments of a study, and the books that they leave behind."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from client.home import SiteHome
from client.verification import verify_site
from common.audit import read_audit, verify_audit
from common.audit_events import MessageOut, MessageRefused
from common.identity import public_name
from common.key_files import read_identity
from common.signed_plan import SignedPlan
from server.checkpoint import CHECKPOINT_NAME, load_checkpoint
from server.progress import RoundProgress, SiteProgress, read_progress
from simulations.deployed import Deployment, deploy, processes_with, wait_until
from tests.tiny_scenario import write_rows

SITES = ("a", "b", "c")
ROUNDS = 3
RESUMES = 6
"""After so many a run must have its result."""

PLAN = {
    "rounds": ROUNDS,
    "minimum_sites": 3,
    "task": {"labels": ["none", "event"], "positive_label": "event", "max_tokens": 16},
    "adapter": {"rank": 2, "top_layers": 1},
    "privacy": {"noise_multiplier": 4.0, "sampling_rate": 0.5, "divisor": 8.0, "delta": 1e-5},
    "optimizer": {"learning_rate": 0.5},
    "secure_aggregation": {"tolerated_dropouts": 0, "tolerated_colluders": 1, "session_rounds": 2},
}

# Long enough for a loaded machine, short enough that a site that was killed holds a run up for seconds only.
WAITING = {
    "answer_seconds": 15.0,
    "exchange_seconds": 6.0,
    "late_seconds": 3.0,
    "gathering_seconds": 120.0,
    "superlink_restarts": 1000,  # a service gives up on a SuperLink that keeps ending; here that is meant
}


def deployed(folder: Path, base: Path, **waiting: float) -> Deployment:
    """Three sites; `a` has no base of its own and is handed it in chunks. `waiting` is the coordinator's."""
    rows = {}
    for name in SITES:
        rows[name] = folder / "data" / name
        write_rows(rows[name] / "rows.csv", name, patients=12)
    deployment = deploy(folder, base, rows, waiting={**WAITING, **waiting})
    config = deployment.sites["a"].config
    config.write_text(config.read_text().replace(f"local = {json.dumps([str(base)])}", "local = []"))
    return deployment


@dataclass
class Study:
    """One plan's run in a deployment, which is watched from outside: by its files alone."""

    deployment: Deployment
    signed: SignedPlan
    first: dict[str, int] = field(default_factory=dict)
    resumes: int = 0

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.deployment.run_of(self.signed).folder

    # --- moments ---

    def told(self, kind: type) -> bool:
        """The run has told an event of a kind."""
        return any(isinstance(event, kind) for event in read_progress(self.folder)[0])

    def gathering(self) -> bool:
        """The coordinator shows the plan."""
        return bool(read_progress(self.folder)[0])

    def fetching(self) -> bool:
        """A site lacks the base."""
        return self.told(SiteProgress)

    def book(self, site: str) -> dict:
        """The site's book of charges, or nothing."""
        path = self.deployment.sites[site].run(self.signed.digest) / "charges.book"
        try:
            return json.loads(path.read_bytes().partition(b"\n")[0])
        except (FileNotFoundError, ValueError):
            return {"last_round": 0, "answered": False, "survivors": []}

    def setting_up(self) -> bool:
        """A session's keys are being exchanged."""
        return self.deployment.sites["b"].run(self.signed.digest).exists() and not self.ordered()

    def ordered(self, number: int = 1) -> bool:
        """A site has begun a round."""
        return self.book("b")["last_round"] >= number

    def answered(self, number: int = 1) -> bool:
        """A site's masked numbers may have left."""
        book = self.book("b")
        return book["last_round"] > number or (book["last_round"] == number and book["answered"])

    def agreed(self, number: int = 1) -> bool:
        """A site has signed who survived."""
        book = self.book("b")
        return book["last_round"] > number or (book["last_round"] == number and bool(book["survivors"]))

    def saved(self, number: int = 1) -> bool:
        """A round is over."""
        if not (self.folder / CHECKPOINT_NAME).exists():
            return False
        saved = load_checkpoint(self.folder, self.signed.digest)
        return saved is not None and saved.round_number >= number

    def exporting(self) -> bool:
        """The result is being written."""
        return (self.folder / "adapter").exists()

    # --- what a user does ---

    def begin(self) -> None:
        """`run`, and nobody looks."""
        self.deployment.start_run(self.signed)

    def go_on(self) -> bool:
        """Wait for `run` to end; without a result, start what is gone, and `run --resume`. Whether there is one."""
        if self.deployment.processes["run"].wait(180) == 0:
            return True
        assert self.resumes < RESUMES, self.deployment.said("run")
        self.resumes += 1
        self._revive()
        self.deployment.start_run(self.signed, *(["--resume"] if self.folder.exists() else []))
        return False

    def finish(self) -> None:
        """Until there is a result."""
        while not self.go_on():
            pass

    def _revive(self) -> None:
        if self.deployment.processes["service"].poll() is not None:
            self.deployment.start_service()
        wait_until(lambda: bool(processes_with(str(self.deployment.coordinator.superlink_database))), "a SuperLink")
        for site in SITES:
            if self.deployment.processes[site].poll() is not None:
                self.deployment.start_node(site)

    # --- books ---

    def charged(self, site: str) -> list[int]:
        """Rounds of the plan that the ledger on disk says are paid for, in order."""
        return [entry["round_number"] for entry in _entries(self.deployment.sites[site], "commit", self.signed.digest)]

    def reserved(self, site: str) -> int:
        """Reservations of the plan."""
        return len(_entries(self.deployment.sites[site], "reserve", self.signed.digest))

    def check_site(self, site: str) -> None:
        """Recorded ε >= true ε: what left is covered by what is charged, once each; ε grows with the rounds."""
        home = self.deployment.sites[site]
        charged = self.charged(site)
        assert charged == sorted(set(charged)), f"a round was charged twice: {charged}"
        assert self.reserved(site) <= 1, "a plan was set aside twice"
        left: dict[int, set[str]] = defaultdict(set)
        reading = read_audit(home.audit, home.audit_anchor, _public(home))
        assert reading.fault is None, reading.fault
        for entry in reading.entries:
            event = entry.event
            if isinstance(event, MessageOut) and event.message == "MaskedReply" and event.plan == self.signed.digest:
                left[event.round_number].add(event.digest)
            assert not (isinstance(event, MessageRefused) and event.code == "rolled-back"), "a site forgot"
        assert set(left) <= set(charged), f"answers left for {sorted(left)}, charged are {charged}"
        assert all(len(digests) == 1 for digests in left.values()), f"a round was answered in two ways: {dict(left)}"

    def check_sequences(self) -> None:
        """Numbers only grow, at both ends, and none that a site has seen is beyond those that are taken."""
        path = self.deployment.coordinator.sequences
        taken = json.loads(path.read_bytes())["sites"] if path.exists() else {}
        for site, home in self.deployment.sites.items():
            seen = json.loads(home.inbox.read_bytes().partition(b"\n")[0])["last_sequence"]
            assert seen >= self.first.get(site, 0), "a site went back"
            self.first[site] = seen
            reserved = taken.get(_public(home), {"reserved": 0})["reserved"]
            assert seen <= reserved, f"site {site} saw request {seen}, and {reserved} numbers are taken"

    def check(self) -> None:
        """Everything at once, right after a kill or at the end."""
        self.check_sequences()
        for site in SITES:
            self.check_site(site)

    def check_end(self) -> None:
        """A result over all rounds, and books that hold."""
        results = json.loads((self.folder / "results.json").read_bytes())
        assert [summary["round_number"] for summary in results["rounds"]] == list(range(1, ROUNDS + 1))
        rounds = [event for event in read_progress(self.folder)[0] if isinstance(event, RoundProgress)]
        assert [event.round_number for event in rounds] == list(range(1, ROUNDS + 1)), "a round was counted twice"
        self.check()
        for site, home in self.deployment.sites.items():
            broken = [one.check for one in verify_site(home) if not one.check.holds]
            assert not broken, (site, broken)
        coordinator = self.deployment.coordinator
        verify_audit(coordinator.audit, coordinator.audit_anchor, _public(coordinator))


def _entries(home: SiteHome, kind: str, plan: str) -> list[dict]:
    """Rows of the ledger, read in plain SQL while the node may write."""
    with closing(sqlite3.connect(f"{home.ledger.as_uri()}?mode=ro", uri=True, timeout=10.0)) as connection:
        rows = connection.execute("SELECT content FROM entries WHERE kind = ? ORDER BY sequence", (kind,)).fetchall()
    return [entry for (content,) in rows if (entry := json.loads(content))["plan_digest"] == plan]


def _public(home) -> str:
    return public_name(read_identity(home.identity_key))


def sharp(moment: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for a moment and come back within a millisecond of it."""
    end = time.monotonic() + seconds
    while not moment():
        assert time.monotonic() < end, moment
        time.sleep(0.0005)


def kill(deployment: Deployment, victim: str) -> None:
    """SIGKILL to one of: serverapp, superlink, service, a site."""
    if victim == "serverapp":
        _kill_all([pid for pid in processes_with("flwr-serverapp") if pid in deployment.remains()])
    elif victim == "superlink":
        _kill_all(processes_with(str(deployment.coordinator.superlink_database)))
    else:
        deployment.kill(victim)
    if victim == "service":
        gone = str(deployment.coordinator.path / "keys")  # SuperLink, superexec and ServerApp all name a key there
        wait_until(lambda: not processes_with(gone), "all that the service started to end", 20.0)


def _kill_all(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
