"""A tiny plan, and sites that answer by a formula."""

from collections.abc import Callable

import numpy as np
import pytest

from common.messages import RoundOrder, RoundReply
from common.plan import Plan
from common.wire import decode, encode
from server.state import GlobalModel

DIMENSION = 3


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., Plan]:
    """Plans for three sites with one table or another changed: `make_plan(rounds=2, server={"momentum": 0.5})`."""

    def make(**changes):
        sections = {
            "name": "tiny",
            "mode": "per-site",
            "rounds": 4,
            "local_steps": 2,
            "minimum_sites": 2,
            "sites": 3,
            "base": {"name": "tiny-base", "files": {"model.safetensors": "0" * 64}},
            "task": {"labels": ("no", "yes"), "positive_label": "yes"},
            "optimizer": {"learning_rate": 0.1},
            "secure_aggregation": {"masked": False},
            "privacy": {"sampling_rate": 0.1, "divisor": 10.0, "noise_multiplier": 1.0},
        }
        return Plan.model_validate(sections | changes)

    return make


@pytest.fixture(scope="session")
def start() -> GlobalModel:
    return GlobalModel(np.zeros(DIMENSION), np.zeros(0, dtype=np.float32))


@pytest.fixture(scope="session")
def formula_answer() -> Callable[[str, bytes], bytes]:
    """A site whose update depends on its name, the round and every bit of the model it was sent."""

    def answer(site, request):
        order = decode(request, RoundOrder)
        pull = {"a": 1.0, "b": -2.0, "c": 4.0}[site]
        update = np.float32(0.25) * (np.float32(pull) - order.weights) / np.float32(order.round_number)
        return encode(RoundReply(order.plan_digest, order.round_number, site, update))

    return answer
