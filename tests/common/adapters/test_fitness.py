import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from common.adapters.fitness import check_architecture, check_trained
from common.findings import Finding
from common.plan import AdapterConfig


@pytest.fixture
def encoder() -> nn.Module:
    config = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=3, num_attention_heads=1, intermediate_size=4)
    return BertModel(config, add_pooling_layer=False)


def by_subject(findings: tuple[Finding, ...]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


def test_a_bert_passes(encoder: nn.Module) -> None:
    found = check_architecture(encoder, AdapterConfig(top_layers=1))
    assert {finding.level for finding in found} == {"pass"}
    assert by_subject(found)["layers"].sentence.startswith("adapters sit in 1 of 3 layers; outputs of the 2 below")


def test_batch_norm_fails(encoder: nn.Module) -> None:
    encoder.norm = nn.BatchNorm1d(4)
    found = by_subject(check_architecture(encoder, AdapterConfig()))["batch norm"]
    assert found.level == "fail"
    assert found.mend


def test_unknown_targets_fail_and_the_known_ones_are_named(encoder: nn.Module) -> None:
    found = check_architecture(encoder, AdapterConfig(targets=("query", "q_proj")))
    failed = [finding for finding in found if finding.level == "fail"]
    told = [(finding.subject, finding.sentence) for finding in failed]
    assert told == [("adapter.targets", "`q_proj` is not a linear module of the base")]
    assert "query" in failed[0].mend


def test_too_many_layers_is_the_only_finding(encoder: nn.Module) -> None:
    found = check_architecture(encoder, AdapterConfig(top_layers=9))
    assert [(finding.level, finding.subject) for finding in found] == [("fail", "layers")]


class Unknown(nn.Module):
    """A layer with a parameter of its own and no per-sample rule."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))


def test_a_trained_layer_without_a_rule_fails() -> None:
    found = by_subject(check_trained(nn.Sequential(nn.Linear(2, 2), Unknown()), 9, prefix_is_cached=True))
    assert found["per-sample gradients"].level == "fail"
    assert "Unknown" in found["per-sample gradients"].sentence


def test_a_frozen_layer_needs_no_rule() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Unknown().requires_grad_(False))
    found = by_subject(check_trained(model, 250_000, prefix_is_cached=False))
    assert found["per-sample gradients"].level == "pass"
    assert found["trained values"].sentence == "250,000 values, 1,000,000 bytes a message"
    assert found["frozen layers"].level == "warn"
