"""The one place that turns a plan's server table into a rule."""

from __future__ import annotations

from common.plan import ServerConfig
from server.aggregation.base import Aggregator
from server.aggregation.fedavg import FedAvg
from server.aggregation.fedopt import FedOpt


def build_aggregator(server: ServerConfig) -> Aggregator:
    """The rule that the plan names, with the plan's constants."""
    if server.optimizer == "fedavg":
        return FedAvg(server.learning_rate, server.momentum)
    return FedOpt(
        rule=server.optimizer,
        learning_rate=server.learning_rate,
        momentum=server.momentum,
        second_moment=server.second_moment,
        adaptivity=server.adaptivity,
    )
