"""The gradient oracle of `cloister-site doctor`, on a model made up on the spot or on a real base."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from client.training.self_test import check_gradients
from common.adapters.fitness import refuse_unfit_architecture
from common.base_model import Base, load_base
from common.compute import ComputeConfig
from common.plan import (
    AdapterConfig,
    BaseIdentity,
    OptimizerConfig,
    Plan,
    PrivacyTerms,
    SecureAggregationConfig,
    TaskConfig,
)
from common.randomness import public_generator
from common.trainable import TrainableModel

_WORDS = 64
_WIDTH = 16
_PADDING, _UNKNOWN = "[PAD]", "[UNK]"


def check_small_model() -> float:
    """The largest relative error of a record's gradient on an encoder of two layers; takes a moment.

    Raises:
        IntegrityError: When hooks and loop differ: this machine's libraries do not compute what the clip bound needs.
    """
    compute = ComputeConfig()
    return check_gradients(TrainableModel(_small_base(), _small_plan(), compute))


def check_real_model(folder: Path, plan: Plan, compute: ComputeConfig) -> float:
    """The same on a plan's own base and adapter.

    Args:
        folder: Of the base.
        plan: Names adapter and task.
        compute: As the site trains.

    Raises:
        ConfigError: When the base cannot be loaded, or does not fit the plan.
        IntegrityError: As `check_small_model`.
    """
    base = load_base(folder, plan.base.name, compute)
    refuse_unfit_architecture(base.encoder, plan.adapter)
    return check_gradients(TrainableModel(base, plan, compute))


def _small_base() -> Base:
    config = BertConfig(
        vocab_size=_WORDS,
        hidden_size=_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * _WIDTH,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    encoder = BertModel(config, add_pooling_layer=False)
    _fill(encoder)
    encoder.requires_grad_(requires_grad=False)
    return Base(_identity(), encoder, _tokenizer(), _WIDTH, config.max_position_embeddings)


@torch.no_grad()
def _fill(encoder: torch.nn.Module) -> None:
    generator = public_generator(0, "doctor's model")
    for value in encoder.parameters():
        if value.dim() > 1:
            value.copy_(torch.from_numpy(generator.normal(0.0, 0.3, tuple(value.shape))))


def _tokenizer() -> PreTrainedTokenizerFast:
    words = [_PADDING, _UNKNOWN, "[CLS]", "[SEP]", "[MASK]", *(f"word{number}" for number in range(5, _WORDS))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=_UNKNOWN, pad_token=_PADDING)


def _identity() -> BaseIdentity:
    return BaseIdentity(name="doctor", files={"config.json": "0" * 64})


def _small_plan() -> Plan:
    """Both stages, so that the gradients of head and adapter are looked at alone and together."""
    return Plan(
        name="doctor",
        mode="per-site",
        rounds=2,
        sites=1,
        base=_identity(),
        task=TaskConfig(labels=("no", "yes"), positive_label="yes", max_tokens=16),
        adapter=AdapterConfig(method="lora", rank=2, top_layers=1, targets=("query", "value"), head_rounds=1),
        optimizer=OptimizerConfig(learning_rate=0.1),
        secure_aggregation=SecureAggregationConfig(masked=False),
        privacy=PrivacyTerms(sampling_rate=0.5, divisor=1.0, noise_multiplier=1.0),
    )
