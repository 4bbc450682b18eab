from pathlib import Path

import pytest
import torch
from torch import nn

from common.base_model import load_base
from common.compute import ComputeConfig
from common.frozen_prefix import cut_encoder, cut_is_exact


@pytest.fixture
def encoder(tiny_base: Path) -> nn.Module:
    return load_base(tiny_base, "tiny", ComputeConfig()).encoder


@pytest.mark.parametrize("cut", [1, 2])
def test_both_parts_in_a_row_are_the_whole(encoder: nn.Module, cut: int) -> None:
    parts = cut_encoder(encoder, cut)
    assert parts is not None
    ids, mask = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]]), torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])
    whole = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    hidden = parts.prefix(input_ids=ids, attention_mask=mask).last_hidden_state
    again = parts.suffix(inputs_embeds=hidden, attention_mask=mask).last_hidden_state
    assert torch.allclose(whole[mask.bool()], again[mask.bool()], atol=1e-5)


def test_the_parts_share_the_parameters_of_the_whole(encoder: nn.Module) -> None:
    parts = cut_encoder(encoder, 2)
    assert parts is not None
    whole = {id(parameter) for parameter in encoder.parameters()}
    shared = {id(parameter) for part in (parts.prefix, parts.suffix) for parameter in part.parameters()}
    assert shared == whole


def test_the_encoder_is_left_as_it_was(encoder: nn.Module) -> None:
    names = [name for name, _ in encoder.named_modules()]
    cut_encoder(encoder, 2)
    assert [name for name, _ in encoder.named_modules()] == names


def test_below_the_first_layer_there_is_nothing_to_cut(encoder: nn.Module) -> None:
    assert cut_encoder(encoder, 0) is None


def test_an_encoder_without_embeddings_stays_whole(encoder: nn.Module) -> None:
    del encoder.embeddings
    assert cut_encoder(encoder, 1) is None


def test_a_cut_that_computes_something_else_is_noticed(encoder: nn.Module) -> None:
    parts = cut_encoder(encoder, 1)
    other = cut_encoder(encoder, 2)
    assert parts is not None
    assert other is not None
    assert cut_is_exact(encoder, parts)
    assert not cut_is_exact(encoder, type(parts)(parts.prefix, other.suffix, 1))  # a layer is left out
