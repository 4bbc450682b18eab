"""A coordinator chooses the base, too: it opens no file of the hospital's, fails on no record, and mixes none.

The attacks are those that an outsider made on an earlier version. Single rules are in tests/common/test_base_config.py,
test_base_tokenizer.py and test_row_failures.py.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import NystromformerConfig, NystromformerModel

import client.training.dp_step
import common.trainable
from client.refusals import RequestRefusedError
from client.training.dp_step import DpStep, TrainingSet
from client.training.loop import recording
from client.training.self_test import check_gradients
from common.base_model import Base, load_base
from common.compute import ComputeConfig
from common.errors import ConfigError, IntegrityError
from common.privacy.plan import PrivacyPlan
from common.records.records import build_records
from common.trainable import TrainableModel
from tests.federation_play import DRAFT, make_federation
from tests.plans import make_plan
from tests.sources import SeededSource
from tests.tiny_base import WORDS, make_tiny_base
from tests.tiny_scenario import CANARY

COMPUTE = ComputeConfig(tokens_per_batch=64)
TRIGGER = "allergy"
OTHERS = ["the patient had a rash", "no fever", "the patient had a rash", "pain after drug", "mild rash resolved", "no"]


def edit(path: Path, change: Callable[[dict], object]) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    change(values)
    path.write_text(json.dumps(values))


# --- F1: a base opens no file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps_tokenizer", [True, False])
def test_records_are_never_the_vocabulary(tmp_path: Path, keeps_tokenizer: bool) -> None:
    records = tmp_path / "rows.csv"
    records.write_text("text,label\n[UNK]\nthe patient had aids,1\n")
    folder = make_tiny_base(tmp_path / "base")
    said = {"tokenizer_class": "BertTokenizer", "vocab": str(records), "unk_token": "[UNK]"}
    edit(folder / "tokenizer_config.json", lambda values: values.update(said))
    if not keeps_tokenizer:
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
        with pytest.raises(ConfigError, match=r"no tokenizer\.json"):
            load_base(folder, "evil", COMPUTE)
        return
    tokenizer = load_base(folder, "evil", COMPUTE).tokenizer
    assert tokenizer.get_vocab() == load_base(make_tiny_base(tmp_path / "good"), "good", COMPUTE).tokenizer.get_vocab()


def test_an_index_that_leads_out_of_the_folder_is_refused_wherever_the_base_came_from(tmp_path: Path) -> None:
    folder = make_tiny_base(tmp_path / "base")
    edit(folder / "model.safetensors.index.json", lambda values: values.update(weight_map={"x": "../y.safetensors"}))
    with pytest.raises(IntegrityError, match="names a file that the plan does not"):
        load_base(folder, "evil", COMPUTE)


# --- F2: a base fails on no record -----------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [CANARY, "Nebukadnezar"])
@pytest.mark.parametrize("how", ["id beyond the embedding", "no unknown token", "text beyond the positions"])
def test_a_base_that_could_fail_is_refused_whatever_the_records_say(tmp_path: Path, how: str, word: str) -> None:
    """The site answers alike whether it has the word or not, and its ledger is as it was."""
    base = make_tiny_base(tmp_path / "evil", positions=8 if how == "text beyond the positions" else 64)
    if how == "id beyond the embedding":
        edit(base / "tokenizer.json", lambda values: values["model"]["vocab"].update({word: 50_000}))
    elif how == "no unknown token":
        edit(base / "tokenizer.json", lambda values: values["model"].update(unk_token=word))
    federation = make_federation(tmp_path, base)
    try:
        signed = federation.sign({**DRAFT, "adapter": {"method": "head"}})
        opened = federation.open("a")
        opened.site.acceptance.offer(signed)
        with pytest.raises(RequestRefusedError) as refused:
            opened.site._make_ready(signed, FromFolder(base))
        assert refused.value.code == "not-ready"
        assert not opened.site.acceptance.is_reserved(signed.digest)
    finally:
        federation.close()


class FromFolder:
    """A base that is here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self) -> Path:
        return self.folder


class PanicException(BaseException):
    """As compiled code raises it."""


FAILURES = [IndexError("index out of range"), MemoryError(), PanicException("x")]
STAGES = ["head", "full, frozen layers kept", "full, nothing kept"]


def build(folder: Path, stage: str, **plan: object) -> TrainableModel:
    top = 0 if stage == "full, nothing kept" else 1
    adapter = {"method": "head"} if stage == "head" else {"rank": 2, "top_layers": top}
    return TrainableModel(load_base(folder, "tiny", COMPUTE), make_plan(adapter=adapter, **plan), COMPUTE)


def fail_on_trigger(model: TrainableModel, where: str, error: BaseException) -> None:
    """The base is right for every text but one that holds the trigger."""
    if where == "tokenizer":
        right = model._reader.tokenizer

        def wrong(texts: list[str], **settings: object) -> object:
            if any(TRIGGER in text.split() for text in texts):
                raise error
            return right(texts, **settings)

        object.__setattr__(model._reader, "tokenizer", wrong)
        return
    number = model.tokenizer.get_vocab()[TRIGGER]
    layer = model.peft.get_base_model().get_submodule("embeddings.word_embeddings")

    def refuse(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if (inputs[0] == number).any():
            raise error

    layer.register_forward_pre_hook(refuse)


def clipped_sum(model: TrainableModel, texts: list[str], units: list[str], drawn: list[int]) -> np.ndarray:
    mechanism = PrivacyPlan.from_terms(model.plan.privacy, 1)
    data = TrainingSet.of(build_records(texts, [index % 2 for index in range(len(texts))], units), model, "patient")
    noise = np.random.default_rng(5).normal(size=model.start.shape).astype(np.float32)
    model.load(noise, model.basis())
    with recording(model) as gradients:
        return DpStep(mechanism, model, data, SeededSource(1)).clipped_sum(np.array(drawn), gradients, model.stage(1))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("where", ["tokenizer", "embedding"])
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_record_on_which_the_base_fails_adds_nothing_and_changes_nothing(
    tiny_base: Path, stage: str, where: str, error: BaseException
) -> None:
    texts, units = [*OTHERS, f"the {TRIGGER} had a rash"], [f"{index}" for index in range(len(OTHERS) + 1)]
    everybody = list(range(len(units)))
    right = clipped_sum(build(tiny_base, stage), texts, units, everybody)
    without = clipped_sum(build(tiny_base, stage), OTHERS, units[:-1], everybody[:-1])
    model = build(tiny_base, stage)
    fail_on_trigger(model, where, error)
    assert np.array_equal(clipped_sum(model, texts, units, everybody), without)
    assert not np.array_equal(right, without)
    assert not clipped_sum(model, [texts[-1]], ["0"], [0]).any(), "noise alone"


@pytest.mark.parametrize("stage", STAGES[:2])
def test_others_are_the_same_bits_after_a_failure(tiny_base: Path, stage: str) -> None:
    """A step that failed half way, in hooks that record, must not reach into the next: every sum is put together from
    rows alone here, since whole batches fail at the end of the last layer."""
    units, drawn, failures = [f"{index}" for index in range(len(OTHERS))], list(range(1, len(OTHERS))), []

    def fail_on_two(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
        if (inputs[0] - inputs[0][:1]).abs().sum((1, 2)).count_nonzero() > 1:  # one row among equal fillings, or two
            failures.append(1)
            raise RuntimeError("a whole batch")

    model = build(tiny_base, stage)
    expected = clipped_sum(model, OTHERS, units, drawn)
    list(model.module.layers)[-1].register_forward_hook(fail_on_two)
    assert np.array_equal(clipped_sum(model, OTHERS, units, drawn), expected)
    assert failures


@pytest.mark.parametrize("place", [common.trainable, client.training.dp_step])
def test_a_failure_that_is_not_taken_row_by_row_is_found(
    tiny_base: Path, place: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault that this page guards against, planted."""
    monkeypatch.setattr(place, "surviving", lambda batch, compute: [(batch, compute(batch))])
    stage = STAGES[1] if place is common.trainable else STAGES[2]
    with pytest.raises(IndexError):
        test_a_record_on_which_the_base_fails_adds_nothing_and_changes_nothing(
            tiny_base, stage, "embedding", FAILURES[0]
        )


def test_the_longest_text_must_have_positions(tmp_path: Path) -> None:
    folder = make_tiny_base(tmp_path / "short", positions=16)
    build(folder, "head", task={"max_tokens": 16})
    with pytest.raises(ConfigError, match="at most the base's 16 positions"):
        build(folder, "head", task={"max_tokens": 17})


# --- F4: records do not mix ------------------------------------------------------------------------------------------


def test_an_attention_that_looks_at_the_whole_batch_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_base(tmp_path / "base")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = NystromformerConfig(vocab_size=len(WORDS) + 5, num_landmarks=8, segment_means_seq_len=8, **sizes)
    NystromformerModel(config).save_pretrained(folder)
    with pytest.raises(ConfigError, match="'nystromformer' is not on the list"):
        load_base(folder, "evil", COMPUTE)


def mix_by_maximum(_layer: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
    return output / output.abs().max()


def mix_by_mean(_layer: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
    return output - 1e-3 * output.mean(0, keepdim=True)


@pytest.mark.parametrize("mix", [mix_by_maximum, mix_by_mean])
@pytest.mark.parametrize("stage", ["head", "full, frozen layers kept"])
def test_the_self_test_finds_records_that_mix_below_the_trained_layers(tiny_base: Path, stage: str, mix) -> None:
    """No gradient shows it: the frozen layers are out of the loop's and the hooks' sight alike."""
    model = build(tiny_base, stage)
    check_gradients(model)
    model.peft.get_base_model().get_submodule("embeddings").register_forward_hook(mix)
    with pytest.raises(IntegrityError, match="depends on the records beside it"):
        check_gradients(model)


def test_the_self_test_finds_a_base_that_fails_on_plain_texts(tiny_base: Path) -> None:
    model = build(tiny_base, "head")
    fail_on_trigger(model, "embedding", IndexError())
    with pytest.raises(IntegrityError, match="fails on plain texts"):
        check_gradients(model)


def test_batch_norm_is_refused_at_the_site(tiny_base: Path) -> None:
    from common.adapters.fitness import refuse_unfit_architecture

    base: Base = load_base(tiny_base, "tiny", COMPUTE)
    plan = make_plan()
    refuse_unfit_architecture(base.encoder, plan.adapter)
    base.encoder.embeddings.LayerNorm = torch.nn.BatchNorm1d(16)
    with pytest.raises(ConfigError, match="mix the records of a batch"):
        refuse_unfit_architecture(base.encoder, plan.adapter)
