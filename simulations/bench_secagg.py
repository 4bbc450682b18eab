"""What a masked round costs a site and the coordinator, in time and bytes, and beside Flower's SecAgg+ in the same run.

`make bench` prints these figures below its others; `python -m simulations.bench_secagg` prints them alone. Times are
medians over turns. A site's time goes from the frame that came to the frame that leaves, with the noise and with its
books on disk; the coordinator's is that of the whole round without the sites'. Neither has training or a network.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from client.training.skellam import skellam
from common.plan import Plan
from common.randomness import SecretSource
from common.secagg.parameters import find_neighbourhood
from simulations import bench_flower
from simulations.bench_flower import Sharing, measure_flower
from simulations.bench_sites import BenchFederation, Timed
from simulations.bench_table import Figure, print_figures

_VALUES = 300_000
# Sites, and how many rounds of them are measured with nobody missing and with d missing: with 200 sites in one process
# a round takes 20 s, nearly all of it the sites'.
_TURNS = {10: (9, 3), 50: (3, 1), 200: (2, 1)}
_NOISY = 5
_LARGEST_SHARE = 1 << 16  # σ = 1 on the usual grid, were all the noise one site's
_SITE_AIM = {10: "<= 100 ms"}
_COORDINATOR_AIM = {10: "<= 200 ms"}


def main() -> None:
    """Measure, and print one line a figure."""
    print_figures("Secure aggregation", secagg_figures())


def secagg_figures() -> Iterator[Figure]:
    """All figures, for each number of sites."""
    yield from noise_table_figures()
    for count, turns in _TURNS.items():
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(BenchFederation(count, _VALUES, Path(folder), _NOISY), turns)
        yield from _site_figures(measured)
        yield from _coordinator_figures(measured)
        yield from _byte_figures(measured)
        yield from _setup_figures(measured)
        yield from _flower_figures(measured)
    yield from degree_figures()


def noise_table_figures() -> list[Figure]:
    """How long the first draw of a process takes longer than the others: it builds the table of the distribution."""
    source = SecretSource()
    # Another variance each turn, because tables are kept.
    seconds = [_seconds(partial(skellam, _LARGEST_SHARE**2 - turn, 1, source)) for turn in range(5)]
    return [(f"Skellam table, once a process (scale {_LARGEST_SHARE:,})", _milliseconds(seconds), "")]


@dataclass(frozen=True)
class Measured:
    """Everything that was timed with one number of sites.

    Attributes:
        plan: The plan.
        dimension: d of the vectors.
        noisy: Sites that drew their noise: only these count as a site's time.
        setup: The set-up of a session.
        rounds: Rounds with nobody missing.
        short: Rounds in which the last `tolerated_dropouts` sites' numbers were lost.
        noise: Seconds of each draw.
        masks: Seconds of masking alone.
        answers: Seconds of consent and reveal, without frames and books.
    """

    plan: Plan
    dimension: int
    noisy: tuple[str, ...]
    setup: Timed
    rounds: tuple[Timed, ...]
    short: tuple[Timed, ...]
    noise: tuple[float, ...]
    masks: tuple[float, ...]
    answers: tuple[float, ...]

    def site(self, exchanges: slice) -> list[float]:
        """Seconds of each noisy site in each round with nobody missing, over these exchanges."""
        return [
            sum(exchange.seconds[site] for exchange in timed.exchanges[exchanges])
            for timed in self.rounds
            for site in self.noisy
        ]

    @property
    def bare_site(self) -> float:
        """Median seconds of a site without noise, frames and books, but with a round's part of the set-up."""
        setup = self.setup_site / self.plan.secure_aggregation.session_rounds
        return statistics.median(self.masks) + statistics.median(self.answers) + setup

    @property
    def setup_site(self) -> float:
        """Median seconds of a site in the set-up."""
        return statistics.median(self.setup.site_seconds(site) for site in self.plan.roster)


def measure(federation: BenchFederation, turns: tuple[int, int]) -> Measured:
    """Set up a session and play rounds; the first is not measured."""
    setup = federation.set_up()
    federation.round(1)
    warm = len(federation.trainers[federation.names[0]].seconds)
    full, short = turns
    lost = federation.names[-federation.plan.secure_aggregation.tolerated_dropouts :]
    rounds = tuple(federation.round(2 + turn)[0] for turn in range(full))
    shorter = tuple(federation.round(2 + full + turn, lost)[0] for turn in range(short))
    values = np.zeros(federation.dimension, dtype=np.int64)
    masks, answers = zip(*(federation.bare_seconds(site, rounds[-1], values) for site in federation.noisy), strict=True)
    noise = [second for site in federation.noisy for second in federation.trainers[site].seconds[warm:]]
    times = (tuple(noise), masks, answers)
    return Measured(federation.plan, federation.dimension, federation.noisy, setup, rounds, shorter, *times)


def _site_figures(measured: Measured) -> Iterator[Figure]:
    count, degree = measured.plan.sites, measured.plan.parameters.neighbourhood.degree
    yield f"{count} sites, {degree} neighbours each", "", ""
    yield "  site, a round", _milliseconds(measured.site(slice(None))), _SITE_AIM.get(count, "")
    yield "    noise", _milliseconds(measured.noise), ""
    yield f"    masks ({degree + 1})", _milliseconds(measured.masks), ""
    inputs = statistics.median(measured.site(slice(1)))
    rest = inputs - statistics.median(measured.noise) - statistics.median(measured.masks)
    yield "    model in, numbers out: frames, digests, books", _milliseconds([rest]), ""
    yield "    consent", _milliseconds(measured.site(slice(1, 2))), ""
    yield "    reveal", _milliseconds(measured.site(slice(2, 3))), ""


def _coordinator_figures(measured: Measured) -> Iterator[Figure]:
    count, dropouts = measured.plan.sites, measured.plan.secure_aggregation.tolerated_dropouts
    aim = _COORDINATOR_AIM.get(count, "")
    for title, rounds in (("nobody missing", measured.rounds), (f"{dropouts} missing", measured.short)):
        yield f"  coordinator, a round, {title}", _milliseconds([_coordinator_seconds(rounds)]), aim
        for place, part in enumerate(("sums", "consents", "reveals and unmasking")):
            yield f"    {part}", _milliseconds([timed.parts[place] for timed in rounds]), ""


def _byte_figures(measured: Measured) -> Iterator[Figure]:
    plain = 4 * measured.dimension
    site, timed = measured.noisy[0], measured.rounds[0]
    for title, size, aim in (
        ("up", timed.bytes_up(site), "<= 1.02"),
        ("down", timed.bytes_down(site), ""),
    ):
        yield f"  bytes {title}, a round and site / plain float32", f"{size / plain:.4f}", aim
        yield "    beyond the numbers", f"{size - plain:,}", ""


def _setup_figures(measured: Measured) -> Iterator[Figure]:
    setup, site = measured.setup, measured.noisy[0]
    yield (
        f"  set-up for {measured.plan.secure_aggregation.session_rounds} rounds, site",
        _milliseconds([measured.setup_site]),
        "",
    )
    yield "    coordinator", _milliseconds([setup.coordinator_seconds]), ""
    yield "    bytes up and down, a site", f"{setup.bytes_up(site):,} and {setup.bytes_down(site):,}", ""


def _flower_figures(measured: Measured) -> Iterator[Figure]:
    """Flower's time over ours: a site's work proper on both sides; at the coordinator ours has frames and books too."""
    if not bench_flower.INSTALLED:
        yield "  Flower's SecAgg+ / ours (pip install flwr==1.41.0, elsewhere)", "flwr is absent", ""
        return
    neighbourhood = measured.plan.parameters.neighbourhood
    sharing = Sharing(neighbourhood.degree + 1, neighbourhood.share_threshold)
    flower = measure_flower(sharing, measured.plan.sites, measured.dimension)
    dropouts = measured.plan.secure_aggregation.tolerated_dropouts
    setup = measured.setup.coordinator_seconds / measured.plan.secure_aggregation.session_rounds
    full, short = (setup + _coordinator_seconds(rounds) for rounds in (measured.rounds, measured.short))
    for title, theirs, ours in (
        ("site, no noise", flower.site, measured.bare_site),
        ("coordinator, nobody missing", flower.coordinator(0), full),
        (f"coordinator, {dropouts} missing", flower.coordinator(dropouts), short),
    ):
        ratio = f"{_milliseconds([theirs])} / {_milliseconds([ours])} = {theirs / ours:.2f}"
        yield f"  Flower's SecAgg+ / ours: {title}", ratio, ""


def _coordinator_seconds(rounds: tuple[Timed, ...]) -> float:
    return statistics.median(timed.coordinator_seconds for timed in rounds)


def degree_figures() -> Iterator[Figure]:
    """Neighbours a site needs: what its cost grows with."""
    counts = (10, 50, 200, 800, 3200)
    yield f"neighbours at {', '.join(map(str, counts))} sites, 5 % colluders", "", ""
    for title, dropouts in (("3 drop-outs", lambda _: 3), ("10 % drop-outs", lambda count: math.ceil(0.1 * count))):
        degrees = [_degree(count, dropouts(count)) for count in counts]
        yield f"  {title}", ", ".join(map(str, degrees)), ""


def _degree(sites: int, dropouts: int) -> int:
    return find_neighbourhood(sites, dropouts, math.ceil(0.05 * sites), sites - dropouts).degree


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1000 * statistics.median(seconds):.1f} ms"


if __name__ == "__main__":
    main()
