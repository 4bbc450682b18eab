"""Pooling, the fixed map and the head, by hand."""

import numpy as np
import pytest
import torch

from common.tasks.text_classification import EncoderPart, FeatureMap, MeanPoolClassifier, Pooling, mean_pool


class Doubler(torch.nn.Module):
    """An encoder of two layers; each doubles what it is given."""

    class Layer(torch.nn.Module):
        def forward(self, hidden):
            return 2 * hidden

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([self.Layer(), self.Layer()])

    def forward(self, inputs_embeds, attention_mask):
        hidden = inputs_embeds
        for layer in self.layers:
            hidden = layer(hidden)
        return type("Output", (), {"last_hidden_state": hidden})


VALUES = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
MASK = torch.tensor([[1, 1, 0]])


def classifier(pooling: Pooling, features: int) -> MeanPoolClassifier:
    encoder = Doubler()
    return MeanPoolClassifier(EncoderPart(encoder, tuple(encoder.layers), given_hidden=True), features, 2, pooling)


def test_padding_does_not_count() -> None:
    assert mean_pool(VALUES, MASK).tolist() == [[2.0, 3.0]]


def test_a_row_without_tokens_pools_to_zero() -> None:
    assert mean_pool(VALUES, torch.zeros_like(MASK)).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(("layers", "expected"), [(1, [8, 12]), (2, [4, 6, 8, 12]), (3, [2, 3, 4, 6, 8, 12])])
def test_top_layers_are_pooled_side_by_side_lowest_first(layers: int, expected: list[float]) -> None:
    assert classifier(Pooling(layers=layers), 2 * layers).head_inputs(VALUES, MASK).tolist() == [expected]


def test_map_comes_before_scale() -> None:
    mapped = FeatureMap(torch.tensor([8.0, 0.0]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert classifier(Pooling(scale=3.0, feature_map=mapped), 2).head_inputs(VALUES, MASK).tolist() == [[36.0, 0.0]]


def test_the_head_starts_undecided() -> None:
    assert classifier(Pooling(), 2)(VALUES, MASK).tolist() == [[0.0, 0.0]]


def test_pooled_rows_skip_the_encoder() -> None:
    model = classifier(Pooling(scale=3.0), 2)
    torch.nn.init.eye_(model.head.weight)
    assert model(torch.tensor([[[5.0, 7.0]]]), torch.tensor([[1]]), pooled=True).tolist() == [[5.0, 7.0]]


def test_plain_head_folds_map_and_scale_in() -> None:
    generator = torch.Generator().manual_seed(1)
    mapped = FeatureMap(torch.randn(4, generator=generator), torch.randn(4, 4, generator=generator))
    model = classifier(Pooling(layers=2, scale=0.5, feature_map=mapped), 4)
    torch.nn.init.normal_(model.head.weight, generator=generator)
    torch.nn.init.normal_(model.head.bias, generator=generator)
    weight, bias = model.plain_head()
    plain = torch.tensor([[4.0, 6.0, 8.0, 12.0]]) @ weight.T + bias
    assert np.allclose(plain, model(VALUES, MASK).detach(), atol=1e-5)
