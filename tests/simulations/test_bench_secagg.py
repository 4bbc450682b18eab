"""The figures, from times made up so that each can be worked out, and once from a small federation."""

import re

import numpy as np
import pytest

from simulations import bench_flower, bench_secagg
from simulations.bench_flower import FlowerTimes
from simulations.bench_secagg import Measured
from simulations.bench_sites import BenchFederation, Exchange, Timed

NAMES = tuple(f"site-{number:03}" for number in range(10))


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return BenchFederation(10, 5, tmp_path_factory.mktemp("plan"), noisy=0).plan


def exchange(seconds, up, down):
    """One that takes the first site `seconds`, and each other ten times as long."""
    everybody = dict.fromkeys(NAMES[1:], 10 * seconds)
    return Exchange(0.0, {NAMES[0]: bytes(down)}, {NAMES[0]: seconds, **everybody}, {NAMES[0]: up})


def made_up(plan):
    setup = Timed((exchange(0.1, 100, 10), exchange(0.2, 20, 2000)), (0.3, 0.34))
    round_ = Timed((exchange(0.050, 1010, 1020), exchange(0.002, 3, 4), exchange(0.003, 5, 6)), (0.03, 0.02, 0.01))
    short = Timed(round_.exchanges, (0.03, 0.02, 0.05))
    bare = ((0.02, 0.03, 0.9), (0.004, 0.005, 0.006), (0.001, 0.00125, 0.5))
    return Measured(plan, 250, NAMES[:1], setup, (round_,) * 3, (short,), *bare)


def values(figures):
    """By name, without indents; the first of a name counts, and the others are numbered."""
    named = {}
    for name, value, _ in figures:
        key = name.strip()
        named[key if key not in named else f"{key} {sum(other.startswith(key) for other in named) + 1}"] = value
    return named


def test_a_sites_time_is_that_of_its_three_answers_and_splits_into_parts(plan):
    figures = list(bench_secagg._site_figures(made_up(plan)))
    degree = plan.parameters.neighbourhood.degree
    assert values(figures) == {
        f"10 sites, {degree} neighbours each": "",
        "site, a round": "55.0 ms",
        "noise": "30.0 ms",
        f"masks ({degree + 1})": "5.0 ms",
        "model in, numbers out: frames, digests, books": "15.0 ms",
        "consent": "2.0 ms",
        "reveal": "3.0 ms",
    }
    assert [aim for _, _, aim in figures if aim] == ["<= 100 ms"]


def test_the_coordinators_time_is_given_with_everybody_there_and_with_d_missing(plan):
    figures = list(bench_secagg._coordinator_figures(made_up(plan)))
    assert values(figures) == {
        "coordinator, a round, nobody missing": "60.0 ms",
        "sums": "30.0 ms",
        "consents": "20.0 ms",
        "reveals and unmasking": "10.0 ms",
        "coordinator, a round, 1 missing": "100.0 ms",
        "sums 2": "30.0 ms",
        "consents 2": "20.0 ms",
        "reveals and unmasking 2": "50.0 ms",
    }
    assert [aim for _, _, aim in figures if aim] == ["<= 200 ms"] * 2


def test_bytes_are_compared_with_plain_numbers(plan):
    assert values(bench_secagg._byte_figures(made_up(plan))) == {
        "bytes up, a round and site / plain float32": "1.0180",
        "beyond the numbers": "18",
        "bytes down, a round and site / plain float32": "1.0300",
        "beyond the numbers 2": "30",
    }


def test_a_set_up_is_given_for_the_median_site(plan):
    assert values(bench_secagg._setup_figures(made_up(plan))) == {
        "set-up for 32 rounds, site": "3000.0 ms",
        "coordinator": "640.0 ms",
        "bytes up and down, a site": "120 and 2,010",
    }


def test_flower_is_compared_with_the_work_proper_and_a_rounds_share_of_the_set_up(plan, monkeypatch):
    monkeypatch.setattr(bench_flower, "INSTALLED", True)
    asked = []

    def measure(sharing, sites, dimension):
        asked.append((sharing.shares, sharing.threshold, sites, dimension))
        return FlowerTimes(sites, site=0.2, add=0.003, self_mask=0.005, pairwise_masks=0.1)

    monkeypatch.setattr(bench_secagg, "measure_flower", measure)
    assert values(bench_secagg._flower_figures(made_up(plan))) == {
        # masks 5 ms, answers 1.25 ms and 3000 / 32 ms of set-up
        "Flower's SecAgg+ / ours: site, no noise": "200.0 ms / 100.0 ms = 2.00",
        # 60 ms and 640 / 32 ms
        "Flower's SecAgg+ / ours: coordinator, nobody missing": "80.0 ms / 80.0 ms = 1.00",
        # 9 x 8 + 100 ms over 100 + 20 ms
        "Flower's SecAgg+ / ours: coordinator, 1 missing": "172.0 ms / 120.0 ms = 1.43",
    }
    neighbourhood = plan.parameters.neighbourhood
    assert asked == [(neighbourhood.degree + 1, neighbourhood.share_threshold, 10, 250)]


def test_where_flower_is_absent_the_lines_say_so_and_how_to_install_it(plan, monkeypatch):
    monkeypatch.setattr(bench_flower, "INSTALLED", False)
    said = str(list(bench_secagg._flower_figures(made_up(plan))))
    assert "flwr is absent" in said
    assert "flwr==1.41.0" in said


def test_the_first_round_and_its_noise_are_not_measured(tmp_path):
    federation = BenchFederation(10, 5, tmp_path, noisy=2)
    measured = bench_secagg.measure(federation, (3, 2))
    assert (len(measured.rounds), len(measured.short)) == (3, 2)
    assert len(measured.noise) == 2 * 5
    assert len(measured.masks) == len(measured.answers) == 2
    assert len(measured.site(slice(None))) == 3 * 2


def test_all_figures_come_out_of_real_rounds(monkeypatch, capsys):
    monkeypatch.setattr(bench_secagg, "_TURNS", {4: (1, 1)})
    monkeypatch.setattr(bench_secagg, "_VALUES", 1000)
    monkeypatch.setattr(bench_secagg, "_LARGEST_SHARE", 64)
    bench_secagg.main()
    printed = capsys.readouterr().out
    times = [float(number) for number in re.findall(r"(-?[\d.]+) ms", printed)]
    assert len(times) >= 17
    assert min(times) >= 0
    up = re.search(r"bytes up, a round and site / plain float32 +([\d.]+)", printed)
    assert 1 < float(up.group(1)) < 1.5


def test_neighbours_grow_slowly_when_few_drop_out_and_with_n_when_a_fraction_may():
    (_, few, _), (_, fraction, _) = list(bench_secagg.degree_figures())[1:]
    slow, fast = (np.array([int(number) for number in row.split(", ")]) for row in (few, fraction))
    assert slow[-1] < 2.5 * slow[2]  # 16 times the sites
    assert all(fast[1:] > np.array([50, 200, 800, 3200]) / 10)  # as many as may drop out, at least
