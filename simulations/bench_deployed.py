"""What a federation of real processes adds to its compute: calls, rounds, starts and restarts, over TLS on loopback.

`make bench` prints these figures below its others; `python -m simulations.bench_deployed` prints them alone. They are
seconds, and those of a busy machine are worth little: the last column says what a quiet one with two cores should show.
Everything is real but the size of model and data; both ends, SuperLink and gateway share the machine.
"""

from __future__ import annotations

import csv
import itertools
import logging
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from client.app import FleetLink
from client.enrolment import read_pinned
from client.home import SiteHome
from client.keys import node_key
from client.node_number import NodeNumber
from client.opening import OpenSite, open_site
from client.status import StatusBoard
from common.signed_plan import SignedPlan
from server.config import load_coordinator_config
from server.launch import launch
from server.pacing import Patience
from server.progress import PhaseProgress, RoundProgress, read_progress
from server.superlink import LOOPBACK
from simulations.bench_table import Figure, print_figures
from simulations.deployed import Deployment, deploy, wait_until

_CALLS = 100
_ROUNDS = 12
_WARM = 2
_PATIENTS = 12
_WORDS = "the patient had a rash after drug and was well again".split()
_PADDING, _UNKNOWN = "[PAD]", "[UNK]"
OPEN_POLICY = "masked_only = false\nleast_sites = 2\nleast_cohort = 2"

_COMMON: dict[str, object] = {
    "task": {"labels": ["none", "event"], "positive_label": "event", "max_tokens": 16},
    "adapter": {"rank": 2, "top_layers": 1},
    "privacy": {"noise_multiplier": 4.0, "sampling_rate": 0.5, "divisor": 8.0, "delta": 1e-5},
    "optimizer": {"learning_rate": 0.01},
}
EMPTY: dict[str, object] = {
    **_COMMON,
    "name": "empty",
    "rounds": _ROUNDS,
    "minimum_sites": 2,
    "mode": "per-site",
    "secure_aggregation": {"masked": False},
}
"""One exchange a round, for two sites: an order, one step over twelve patients, an answer."""

MASKED: dict[str, object] = {
    **_COMMON,
    "name": "masked",
    "rounds": _ROUNDS,
    "minimum_sites": 3,
    "secure_aggregation": {"tolerated_dropouts": 0, "tolerated_colluders": 1, "session_rounds": 64},
}
"""Three exchanges a round: masked numbers, consent, reveal."""

WORKING: dict[str, object] = {**MASKED, "name": "working", "mode": "per-site", "local_steps": 20, "rounds": 6}
"""The same with twenty steps a site and round."""


def main() -> None:
    """Measure, and print one line a figure."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print_figures("Deployed federation (seconds: median, and middle half)", deployed_figures())


def deployed_figures() -> Iterator[Figure]:
    """All figures, of two sites and of three."""
    with tempfile.TemporaryDirectory() as folder:
        base = make_base(Path(folder) / "base")
        with _begun(Path(folder) / "two", base, ("a", "b"), OPEN_POLICY) as two:
            yield from _call_figures(two)
            _join(two)
            yield from _round_figures(two, EMPTY, "empty round, two sites, one exchange", "<= 0.3")
        with _begun(Path(folder) / "three", base, ("a", "b", "c"), "") as three:
            _join(three)
            yield from _round_figures(three, MASKED, "masked round, three sites, three exchanges", "")
            seconds, measured = _reconnect_seconds(three), _measure(three, WORKING)
            yield "SuperLink killed, until every site is back", f"{seconds:.1f}", ""
        yield "round with 20 steps a site / the same work in one process", _ratio(three, measured), "about 1"


def _begun(folder: Path, base: Path, sites: Sequence[str], policy: str) -> Deployment:
    """A deployment whose service runs, and no node yet; the caller ends it."""
    folder.mkdir()
    data = {name: write_rows(folder / "data" / name, name) for name in sites}
    with ExitStack() as stack:
        deployment = stack.enter_context(deploy(folder, base, data, policy=policy))
        deployment.start_service()
        stack.pop_all()
    return deployment


def _join(deployment: Deployment) -> None:
    deployment.start_nodes()
    wait_until(lambda: all(_connections(deployment, site) for site in deployment.sites), "the sites to connect")


def _connections(deployment: Deployment, site: str) -> int:
    return deployment.log(site).count("[info     ] connected")


# --- calls -----------------------------------------------------------------------------------------------------------


def _call_figures(deployment: Deployment) -> Iterator[Figure]:
    """One node's look for work, straight at the SuperLink and through the gateway, in turns."""
    config = load_coordinator_config(deployment.coordinator.config)
    with ExitStack() as stack:
        links = []
        for port in (config.listen.superlink_port, config.gateway_port):
            link = _link(deployment.sites["a"], f"{LOOPBACK}:{port}")
            stack.callback(link.close)
            link.connect()
            links.append(link)
        pairs = [tuple(_seconds(link.receive) for link in links) for _ in range(_CALLS)]
    straight, through = (statistics.median(each) for each in zip(*pairs, strict=True))
    yield "one call of a node, straight to the SuperLink", f"{1e3 * straight:.1f} ms", ""
    yield "  what the gateway adds", f"{1e3 * (through - straight):.1f} ms", ""


def _link(home: SiteHome, address: str) -> FleetLink:
    authority = read_pinned(home).invitation.ca_certificate
    return FleetLink(address, authority, node_key(home), proxy="", number=NodeNumber(home.node_number))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# --- rounds ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """A run over real processes.

    Attributes:
        first: Seconds from `run` to the first round.
        rounds: Seconds of each round after the warm ones.
        superlink: Seconds of the SuperLink's processor time a round; others on the machine hardly change it.
    """

    first: float
    rounds: tuple[float, ...]
    superlink: float


def _round_figures(deployment: Deployment, draft: dict[str, object], title: str, aim: str) -> Iterator[Figure]:
    measured = _measure(deployment, draft)
    yield title, spread(measured.rounds), aim
    yield "  of it the SuperLink's processor time", f"{measured.superlink:.3f}", ""
    yield "  from `run` to the first round", f"{measured.first:.1f}", ""


def _measure(deployment: Deployment, draft: dict[str, object]) -> Measured:
    """Run a plan to its end.

    Raises:
        RuntimeError: When it does not come to one.
    """
    signed = deployment.sign(draft)
    start = time.monotonic()
    process = deployment.start_run(signed)
    folder, first, superlink, busy = deployment.run_of(signed).folder, None, deployment.superlink(), 0.0
    while process.poll() is None:
        if first is None and PhaseProgress("training") in read_progress(folder)[0]:
            first, busy = time.monotonic() - start, _processor_seconds(superlink)
        time.sleep(0.01)
    busy = _processor_seconds(superlink) - busy
    if process.returncode or first is None:
        raise RuntimeError(deployment.said("run"))
    rounds = [event.seconds for event in read_progress(folder)[0] if isinstance(event, RoundProgress)]
    return Measured(first, tuple(rounds[_WARM:]), busy / len(rounds))


def _processor_seconds(pid: int) -> float:
    """What a process has used so far, in user and kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _reconnect_seconds(deployment: Deployment) -> float:
    """From the SuperLink's SIGKILL until every node has connected to the one that the service starts."""
    before = {site: _connections(deployment, site) for site in deployment.sites}
    start = time.monotonic()
    os.kill(deployment.superlink(), signal.SIGKILL)
    wait_until(lambda: all(_connections(deployment, site) > before[site] for site in before), "the sites to come back")
    return time.monotonic() - start


# --- the same work without a network ---------------------------------------------------------------------------------


class _OneProcess:
    """Hands sealed orders to opened sites, one after the other."""

    def __init__(self, sites: dict[str, OpenSite]) -> None:
        self._sites = sites
        self.patience = Patience(1.0, 1, 1.0)

    def exchange(self, orders: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """As `common.transport.Transport`."""
        for site, order in orders.items():
            answer = self._sites[site].site.answer(order)
            if answer is not None:
                yield site, answer


def _ratio(deployment: Deployment, measured: Measured) -> str:
    """Rounds of real processes over those in which all parties take turns in this one, in the same homes."""
    signed = deployment.sign({**WORKING, "name": "in-one-process"})
    with ExitStack() as stack:
        sites = {
            name: stack.enter_context(open_site(home, StatusBoard(home.status)))
            for name, home in deployment.sites.items()
        }
        rounds = _rounds_here(deployment, signed, sites)
    return f"{statistics.median(measured.rounds) / statistics.median(rounds):.2f}"


def _rounds_here(deployment: Deployment, signed: SignedPlan, sites: dict[str, OpenSite]) -> list[float]:
    launch(deployment.coordinator, signed.digest, lambda *_: _OneProcess(sites))
    events = read_progress(deployment.run_of(signed).folder)[0]
    return [event.seconds for event in events if isinstance(event, RoundProgress)][_WARM:]


def spread(samples: Sequence[float]) -> str:
    """Median, and between which values the middle half lies."""
    low, middle, high = statistics.quantiles(samples, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


# --- model and records -----------------------------------------------------------------------------------------------


def make_base(folder: Path) -> Path:
    """A BERT of one layer with random weights, and a word-level tokenizer: nothing but its size matters."""
    folder.mkdir()
    vocabulary = {word: index for index, word in enumerate((_PADDING, _UNKNOWN, *_WORDS))}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, _UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks: dict[str, Any] = {"unk_token": _UNKNOWN, "pad_token": _PADDING}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    return folder


def write_rows(folder: Path, site: str) -> Path:
    """Two made-up rows a patient."""
    folder.mkdir(parents=True)
    texts = itertools.cycle(" ".join(_WORDS[start:] + _WORDS[:start]) for start in range(len(_WORDS)))
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("patient_id", "text", "label"))
        for row in range(2 * _PATIENTS):
            writer.writerow((f"{site}{row // 2}", next(texts), ("none", "event")[row % 3 == 0]))
    return folder


if __name__ == "__main__":
    main()
