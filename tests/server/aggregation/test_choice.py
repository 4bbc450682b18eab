from common.plan import ServerConfig
from server.aggregation.choice import build_aggregator
from server.aggregation.fedavg import FedAvg
from server.aggregation.fedopt import FedOpt


def test_each_optimizer_of_the_plan_gives_its_rule_with_its_constants():
    assert build_aggregator(ServerConfig(learning_rate=0.5, momentum=0.25)) == FedAvg(0.5, 0.25)
    for name in ("fedadam", "fedyogi"):
        config = ServerConfig(optimizer=name, learning_rate=0.5, momentum=0.25, second_moment=0.5, adaptivity=0.125)
        assert build_aggregator(config) == FedOpt(name, 0.5, 0.25, 0.5, 0.125)
