"""What a base's config.json may say, and whether every architecture on the list keeps the rows of a batch apart."""

import json
from pathlib import Path

import pytest
import torch

from common.base_config import ARCHITECTURES, read_encoder_shape
from common.errors import ConfigError

SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def config_of(model_type: str, **changes: object) -> dict[str, object]:
    values: dict[str, object] = {**SIZES, "max_position_embeddings": 40, "pad_token_id": 1, "hidden_act": "gelu"}
    renamed = ARCHITECTURES[model_type].renamed
    return {"model_type": model_type, **{renamed.get(key, key): value for key, value in values.items()}, **changes}


def write(folder: Path, values: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@torch.no_grad()
def encoder_of(folder: Path, model_type: str, dtype: torch.dtype, scale: float) -> torch.nn.Module:
    shape = read_encoder_shape(write(folder, config_of(model_type)))
    shape.config._attn_implementation = "eager"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = shape.architecture.model(shape.config).eval()
        for value in encoder.parameters():
            value.copy_(scale * torch.randn(value.shape))
    return encoder.to(dtype)


def extreme_neighbours() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of one shape whose row 1 is the same in each: rows beside it full, short, equal, of one token."""
    generator = torch.Generator().manual_seed(1)
    row, lengths = torch.randint(3, 60, (12,), generator=generator), [(12, 12, 12), (1, 12, 1), (3, 12, 9)]
    batches = []
    for fill in ("random", "same", "largest"):
        for counts in lengths:
            ids = torch.randint(3, 60, (3, 12), generator=generator)
            ids = {"random": ids, "same": row.expand(3, -1).clone(), "largest": torch.full_like(ids, 59)}[fill]
            mask = (torch.arange(12) < torch.tensor(counts)[:, None]).long()
            ids[1] = row
            batches.append((ids * mask, mask))
    return batches


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.02, 30.0])
@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_a_row_computes_to_the_same_bits_whoever_is_beside_it(
    tmp_path: Path, model_type: str, scale: float, dtype: torch.dtype
) -> None:
    encoder = encoder_of(tmp_path, model_type, dtype, scale)
    outputs, gradients = [], []
    for ids, mask in extreme_neighbours():
        encoder.zero_grad(set_to_none=True)
        states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        states[1].float().sum().backward()
        outputs.append(states[1].detach())
        layer = next(module for module in encoder.modules() if isinstance(module, torch.nn.Linear))
        gradients.append(layer.weight.grad.clone())
    assert all(torch.equal(output, outputs[0]) for output in outputs[1:])
    assert all(torch.isfinite(output).all() for output in outputs)
    assert all(torch.allclose(gradient, gradients[0], rtol=1e-2) for gradient in gradients[1:])


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_as_many_positions_as_are_told_can_be_used_and_no_more(tmp_path: Path, model_type: str) -> None:
    encoder = encoder_of(tmp_path, model_type, torch.float32, 0.02)
    positions = read_encoder_shape(tmp_path).positions
    for length, fits in ((positions, True), (positions + 1, False)):
        ids = torch.full((1, length), 5)
        try:
            encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
        except (IndexError, RuntimeError):
            assert not fits
        else:
            assert fits


@pytest.mark.parametrize(
    "model_type", ["nystromformer", "mixtral", "qwen3_moe", "mobilebert", "levit", "", None, 3, ["bert"], "BERT"]
)
def test_an_architecture_that_is_not_listed_is_refused(tmp_path: Path, model_type: object) -> None:
    with pytest.raises(ConfigError, match="not on the list of those that keep records apart"):
        read_encoder_shape(write(tmp_path, {**config_of("bert"), "model_type": model_type}))


@pytest.mark.parametrize(
    "change",
    [
        {"auto_map": {"AutoModel": "evil.M"}},
        {"quantization_config": None},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"_attn_implementation": "evil/kernel"},
        {"attn_implementation": "evil/kernel"},
        {"_experts_implementation": "evil/kernel"},
        {"vocab_file": "/etc/hostname"},
        {"position_embedding_type": "relative_key"},
        {"chunk_size_feed_forward": 7},
        {"is_decoder": True},
        {"is_decoder": 0},
        {"add_cross_attention": True},
        {"hidden_act": "evil"},
        {"hidden_act": ["gelu"]},
        {"layer_norm_eps": -1.0},
        {"layer_norm_eps": float("nan")},
        {"vocab_size": 0},
        {"vocab_size": True},
        {"vocab_size": 1 << 40},
        {"num_hidden_layers": 2.0},
        {"max_position_embeddings": "40"},
        {"pad_token_id": -1},
        {"pad_token_id": None},
        {"anything": "else"},
    ],
    ids=str,
)
def test_a_key_that_no_base_may_have_is_refused_by_name(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        read_encoder_shape(write(tmp_path, config_of("bert", **change)))


def test_a_padding_token_without_an_embedding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="padding token has no embedding"):
        read_encoder_shape(write(tmp_path, config_of("bert", pad_token_id=60)))


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read_encoder_shape(write(tmp_path, config_of("bert", auto_map={}, is_decoder=True, vocab_size=0)))
    assert {problem.where for problem in error.value.problems} == {"auto_map", "is_decoder", "vocab_size"}


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 5000, " " * (2 << 20)])
def test_a_file_that_is_no_object_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json of the base model is"):
        read_encoder_shape(tmp_path)


def test_dropout_is_zero_whatever_the_file_says(tmp_path: Path) -> None:
    for model_type in ARCHITECTURES:
        config = read_encoder_shape(write(tmp_path, config_of(model_type, hidden_dropout_prob=0.5))).config
        rates = [getattr(config, name, 0.0) for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")]
        assert rates == [0.0, 0.0]
        assert getattr(config, "dropout", 0.0) == getattr(config, "attention_dropout", 0.0) == 0.0
