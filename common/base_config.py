"""A base's `config.json`: which architectures a base may have, and every key that may say something about one.

A config is the coordinator's. The installed library would follow what it says: to code (`auto_map`), to attention from
a hub, to layers that mix the records of a batch. So it never reads the file: the class comes from the list below, and
the sizes are handed over one by one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from common.errors import ConfigError, Problem

CONFIG_LIMIT_BYTES = 1 << 20
_MOST = 1 << 24
_ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh")


@dataclass(frozen=True)
class Architecture:
    """An encoder in which a record's outputs depend on that record alone.

    Attributes:
        config: Class of its sizes.
        model: Class of the encoder.
        renamed: Names of keys that this architecture calls otherwise, by their usual name.
        further: Sizes that it has beyond the usual ones.
        has_pooler: Whether an unused pooler has to be left out by a setting of its own.
        counts_from_padding: Whether positions begin behind the padding token's id, so that as many are lost.
    """

    config: Callable[..., Any]
    model: Any
    renamed: Mapping[str, str]
    further: tuple[str, ...]
    has_pooler: bool
    counts_from_padding: bool


_DISTILBERT = {
    "hidden_size": "dim",
    "num_attention_heads": "n_heads",
    "num_hidden_layers": "n_layers",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
# Each was tried with extreme neighbours: tests/common/test_base_config.py. A line here needs that test to pass.
ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": Architecture(BertConfig, BertModel, {}, ("type_vocab_size",), True, False),
    "distilbert": Architecture(DistilBertConfig, DistilBertModel, _DISTILBERT, (), False, False),
    "electra": Architecture(ElectraConfig, ElectraModel, {}, ("type_vocab_size", "embedding_size"), False, False),
    "mpnet": Architecture(MPNetConfig, MPNetModel, {}, ("relative_attention_num_buckets",), True, True),
    "roberta": Architecture(RobertaConfig, RobertaModel, {}, ("type_vocab_size",), True, True),
    "xlm-roberta": Architecture(XLMRobertaConfig, XLMRobertaModel, {}, ("type_vocab_size",), True, True),
}

_USUAL_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
# What a key must be where it is there; anything else would be another architecture.
_ONLY: Mapping[str, object] = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
}
# Allowed and not looked at: they say nothing about a frozen encoder without its own head, dropout and cache.
_IDLE = frozenset(
    "_name_or_path architectures transformers_version torch_dtype dtype use_cache initializer_range "
    "gradient_checkpointing id2label label2id num_labels problem_type finetuning_task tie_word_embeddings tie_weights_ "
    "bos_token_id eos_token_id sep_token_id cls_token_id mask_token_id directionality pooler_fc_size "
    "pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type summary_activation "
    "summary_last_dropout summary_type summary_use_proj sinusoidal_pos_embds output_past return_dict output_attentions "
    "output_hidden_states language hidden_dropout_prob attention_probs_dropout_prob classifier_dropout dropout "
    "attention_dropout qa_dropout seq_classif_dropout model_type".split()
)
_NO_DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")


@dataclass(frozen=True)
class EncoderShape:
    """What a base's `config.json` comes to.

    Attributes:
        architecture: From the list.
        config: Built from the keys that were checked; dropout is 0.
        positions: So many tokens a text may have.
    """

    architecture: Architecture
    config: Any
    positions: int


def read_encoder_shape(folder: Path) -> EncoderShape:
    """Read `config.json`, strictly.

    Guarantees:
        The architecture is one of `ARCHITECTURES`. Nothing that the file says reaches the library beyond sizes, an
        elementwise activation, an epsilon and the padding token's id; so it names no file, no code and no kernel.

    Raises:
        ConfigError: With every key that no base may have, or whose value is out of range.
    """
    values = read_json_object(folder / "config.json", CONFIG_LIMIT_BYTES)
    architecture = _architecture(values.get("model_type"))
    problems = tuple(_problems(values, architecture))
    if problems:
        raise ConfigError(
            f"config.json of the base model has {len(problems)} key(s) that no base may have: {_listed(problems)}",
            problems,
            hint="use a plain encoder; a key that says nothing about the encoder may be removed from config.json",
        )
    config = architecture.config(**_kept(values, architecture))
    for name in _NO_DROPOUT:  # noise and clipping already regularise, and its random numbers are slow
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return EncoderShape(architecture, config, _positions(config, architecture))


def read_json_object(path: Path, limit_bytes: int) -> dict[str, Any]:
    """An object from a JSON file that came with a base.

    Raises:
        ConfigError: When the file is too long, or no object.
    """
    if path.stat().st_size > limit_bytes:
        raise ConfigError(
            f"{path.name} of the base model is longer than {limit_bytes:,} bytes", hint="use another base"
        )
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} of the base model is no JSON object", hint="copy the base model again")
    return values


def _architecture(model_type: object) -> Architecture:
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise ConfigError(
            f"architecture {str(model_type)[:64]!r} is not on the list of those that keep records apart",
            hint=f"a base is one of {', '.join(ARCHITECTURES)}",
        )
    return ARCHITECTURES[model_type]


def _problems(values: Mapping[str, Any], architecture: Architecture) -> list[Problem]:
    rules = _rules(architecture)
    found = []
    for key, value in values.items():
        if key in rules:
            if not rules[key](value):
                found.append(Problem(key, "is out of range", repr(value)[:64]))
        elif key in _ONLY:
            if value != _ONLY[key] or type(value) is not type(_ONLY[key]):
                found.append(Problem(key, f"must be {_ONLY[key]!r}", repr(value)[:64]))
        elif key not in _IDLE:
            found.append(Problem(key, "is not a key that a base may have"))
    return found


def _rules(architecture: Architecture) -> dict[str, Callable[[object], bool]]:
    """What each key that reaches the encoder must be."""
    sizes = [architecture.renamed.get(name, name) for name in (*_USUAL_SIZES, *architecture.further)]
    rules: dict[str, Callable[[object], bool]] = dict.fromkeys(sizes, _is_size)
    rules[architecture.renamed.get("hidden_act", "hidden_act")] = lambda value: value in _ACTIVATIONS
    if architecture.config is not DistilBertConfig:
        rules["layer_norm_eps"] = _is_epsilon
    return {**rules, "pad_token_id": _is_id}


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= _MOST


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _is_epsilon(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value) and 0 < value <= 1


def _kept(values: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in _rules(architecture)}


def _positions(config: Any, architecture: Architecture) -> int:  # noqa: ANN401 - transformers' configs share no type
    if config.pad_token_id is None or config.pad_token_id >= config.vocab_size:
        raise ConfigError("the base model's padding token has no embedding", hint="mend pad_token_id in config.json")
    # MPNet counts from its own 1, whatever the config says.
    lost = max(1, config.pad_token_id) + 1 if architecture.counts_from_padding else 0
    return int(config.max_position_embeddings) - lost


def _listed(problems: tuple[Problem, ...]) -> str:
    return "; ".join(str(problem)[:160] for problem in problems[:8])
