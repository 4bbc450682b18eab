"""The round that is timed is a whole one: the mean comes out, with everybody there and with one site missing."""

from importlib.util import find_spec

import numpy as np
import pytest

from simulations import bench_flower
from simulations.bench_flower import FlowerSite, FlowerSum, Sharing

needs_flower = pytest.mark.skipif(not bench_flower.INSTALLED, reason="flwr is not installed: see the extra `flower`")


def play(values: list[np.ndarray], missing: set[int]) -> np.ndarray:
    """Every site is everybody's neighbour."""
    numbers = range(1, len(values) + 1)
    sites = {number: FlowerSite(number, Sharing(len(values), 2)) for number in numbers}
    keys = {number: site.keys() for number, site in sites.items()}
    dealt = {number: site.deal(keys) for number, site in sites.items()}
    total = FlowerSum()
    for number, site in sites.items():
        masked = site.mask({peer: dealt[peer][number] for peer in numbers if peer != number}, values[number - 1])
        if number not in missing:
            total.add(masked)
    present = set(numbers) - missing
    revealed = [sites[number].reveal(present) for number in present]
    for owner in numbers:
        shares = [answer[owner] for answer in revealed]
        if owner in present:
            total.take_off_self_mask(shares)
        else:
            total.take_off_pairwise_masks(owner, shares, {peer: keys[peer] for peer in present})
    return total.mean()


@needs_flower
@pytest.mark.parametrize("missing", [set(), {1}, {3}])
def test_the_mean_of_those_who_are_there_comes_out(missing: set[int]) -> None:
    values = [np.float32([0.5, -1.0, 2.0]) * place for place in (1, 2, 3, 4)]
    mean = np.mean([value for place, value in enumerate(values, start=1) if place not in missing], axis=0)
    assert play(values, missing) == pytest.approx(mean, abs=1e-5)  # 2^22 steps over 16


@needs_flower
def test_what_a_site_sends_is_masked_anew() -> None:
    site, peer = (FlowerSite(number, Sharing(2, 2)) for number in (1, 2))
    sent = []
    for _ in range(2):
        keys = {1: site.keys(), 2: peer.keys()}
        site.deal(keys)
        sent.append(site.mask({2: peer.deal(keys)[1]}, np.zeros(3, np.float32)))
    assert sent[0] != sent[1]


@needs_flower
def test_a_sum_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was added"):
        FlowerSum().mean()


def test_the_module_is_readable_without_flower_and_says_so() -> None:
    assert (find_spec("flwr") is not None) == bench_flower.INSTALLED
