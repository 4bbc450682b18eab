import pytest
from torch import nn
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from common.adapters.layers import adapted_layers, layer_stack
from common.errors import ConfigError
from common.plan import AdapterConfig


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    config = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=3, num_attention_heads=1, intermediate_size=4)
    return BertModel(config, add_pooling_layer=False)


@pytest.mark.parametrize(("top_layers", "numbers"), [(0, [0, 1, 2]), (1, [2]), (2, [1, 2]), (3, [0, 1, 2])])
def test_top_layers_count_from_the_top_and_zero_means_all(bert: nn.Module, top_layers: int, numbers: list[int]) -> None:
    assert list(adapted_layers(bert, AdapterConfig(top_layers=top_layers))) == numbers


def test_more_layers_than_there_are(bert: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"at most the base's 3 layers \(found 4\)"):
        adapted_layers(bert, AdapterConfig(top_layers=4))


def test_other_architectures_call_their_stack_otherwise(bert: nn.Module) -> None:
    distil = DistilBertModel(DistilBertConfig(vocab_size=9, dim=4, n_layers=2, n_heads=1, hidden_dim=4))
    assert (layer_stack(bert).path, layer_stack(bert).pattern) == ("encoder.layer", "layer")
    assert layer_stack(distil).path == "transformer.layer"


def test_the_layer_of_a_parameter(bert: nn.Module) -> None:
    stack = layer_stack(bert)
    assert stack.index_of("encoder.layer.2.attention.self.query.weight") == 2
    assert stack.index_of("embeddings.word_embeddings.weight") is None
    assert stack.index_of("encoder.layernorm.0.weight") is None


def test_a_model_without_a_stack_is_refused(bert: nn.Module) -> None:
    lone = nn.Module()
    lone.config = bert.config
    lone.layers = nn.ModuleList([nn.Linear(1, 1)])
    with pytest.raises(ConfigError, match="no stack of layers"):
        layer_stack(lone)
