"""The stopwatch splits a round without losing a second, and the round that is timed is a real one."""

from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import SecureAggregationError
from common.wire import encode
from simulations import bench_sites
from simulations.bench_sites import BenchFederation, Exchange, Stopwatch, Timed

DIMENSION = 7


@pytest.fixture
def federation(tmp_path):
    made = BenchFederation(4, DIMENSION, tmp_path, noisy=2)
    made.set_up()
    return made


class FixedTrainer:
    def __init__(self, value):
        self.value = value

    def train(self, order):
        return np.full(len(order.weights), self.value, dtype=np.int64)


def with_inputs(folder, monkeypatch, *values):
    """A federation whose sites send these values instead of noise."""
    left = iter(values)
    monkeypatch.setattr(bench_sites, "NoiseTrainer", lambda variance, source: FixedTrainer(next(left)))
    made = BenchFederation(len(values), DIMENSION, folder, noisy=0)
    made.set_up()
    return made


def mean_of(total):
    """What the server rule is given for a sum in grid steps: clip norm 1 is 2^16 steps, and the divisor is 64."""
    return np.full(DIMENSION, total / 2**16 / 64)


def test_the_sum_of_what_the_sites_sent_comes_out(tmp_path, monkeypatch):
    federation = with_inputs(tmp_path, monkeypatch, 1000, 200, 30, 4)
    assert federation.round(1)[1].total == pytest.approx(mean_of(1234))


def test_what_was_lost_is_not_in_the_sum(tmp_path, monkeypatch):
    federation = with_inputs(tmp_path, monkeypatch, 1000, 200, 30, 4)
    _, gathered = federation.round(1, lost=federation.names[-1:])
    assert (gathered.survivors, gathered.total) == (3, pytest.approx(mean_of(1230)))


def test_a_lost_reply_is_one_round_long(federation):
    federation.round(1, lost=federation.names[-1:])
    assert federation.round(2)[1].survivors == 4


def test_a_round_without_a_sum_is_no_figure(federation):
    with pytest.raises(SecureAggregationError, match="too few inputs"):
        federation.round(1, lost=federation.names[-2:])


def test_a_set_up_that_a_site_is_missing_from_is_no_figure(tmp_path, monkeypatch):
    federation = BenchFederation(4, DIMENSION, tmp_path, noisy=0)
    monkeypatch.setattr(bench_sites, "open_session", lambda *_: None)
    with pytest.raises(SecureAggregationError, match="did not finish"):
        federation.set_up()


def test_only_the_noisy_sites_draw_noise(federation):
    _, gathered = federation.round(1)
    assert np.any(gathered.total)
    quiet = federation.trainers[federation.names[-1]]
    order = SimpleNamespace(weights=np.zeros(1000, np.float32))
    assert not quiet.train(order).any()
    drawn = federation.trainers[federation.noisy[0]].train(order)
    assert drawn.std() == pytest.approx(federation.variance**0.5, rel=0.15)


def test_a_round_has_three_exchanges_and_a_set_up_two(tmp_path):
    federation = BenchFederation(4, DIMENSION, tmp_path, noisy=0)
    assert len(federation.set_up().exchanges) == 2
    timed, gathered = federation.round(1)
    assert len(timed.exchanges) == len(timed.parts) == 3
    assert sum(timed.bytes_up(site) for site in federation.names) == gathered.bytes_in
    assert sum(timed.bytes_down(site) for site in federation.names) == gathered.bytes_out


def test_the_work_proper_is_timed_on_the_very_answers_of_the_round(federation, monkeypatch):
    timed, _ = federation.round(1)
    clock = iter([1.0, 3.0, 7.0])
    monkeypatch.setattr(bench_sites, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    site = federation.names[0]
    half, made = federation.halves[site], []
    for name in ("mask", "consent", "reveal"):
        call = getattr(half, name)
        monkeypatch.setattr(half, name, lambda *values, call=call: made.append(call(*values)))
    assert federation.bare_seconds(site, timed, np.zeros(DIMENSION, np.int64)) == (2.0, 4.0)
    assert [len(encode(message)) for message in made] == [exchange.bytes_up[site] for exchange in timed.exchanges]


def test_every_second_is_a_sites_or_the_coordinators():
    first = Exchange(10.5, {"a": b"seven b"}, seconds={"a": 2.0, "b": 3.0}, bytes_up={"a": 5})
    second = Exchange(17.0, {"a": b"tw"}, seconds={"a": 1.0, "b": 0.5}, bytes_up={"a": 1})
    timed = Timed.of(10.0, [first, second], 20.0)
    assert timed.parts == (2.0, 1.5)
    assert timed.coordinator_seconds == 3.5
    assert timed.site_seconds("a") + timed.site_seconds("b") + timed.coordinator_seconds == 10.0
    assert (timed.bytes_up("a"), timed.bytes_down("a")) == (6, 9)


def test_the_stopwatch_times_the_site_and_not_the_caller(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(bench_sites, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def answer(order):
        clock.now += 2.0
        return order * 3

    watch = Stopwatch({"a": SimpleNamespace(answer=answer), "b": SimpleNamespace(answer=answer)})
    watch.start(lost=("b",))
    came = []
    for site, frame in watch.exchange({"a": b"x", "b": b"yz"}):
        came.append((site, frame))
        clock.now += 100.0
    (exchange,) = watch.exchanges
    assert came == [("a", b"xxx")]
    assert exchange.seconds == {"a": 2.0, "b": 2.0}
    assert exchange.bytes_up == {"a": 3, "b": 6}
    assert dict(watch.exchange({"b": b"x"})) == {"b": b"xxx"}  # what is lost is lost once


def test_the_plan_tolerates_a_tenth_missing_and_a_twentieth_colluding(tmp_path):
    terms = BenchFederation(30, DIMENSION, tmp_path, noisy=0).plan.secure_aggregation
    assert (terms.tolerated_dropouts, terms.tolerated_colluders) == (3, 2)
