from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.base_files import FEATURE_MAP_NAME
from common.base_model import Base, load_base
from common.canonical import file_digest
from common.compute import ComputeConfig
from common.errors import ConfigError
from common.plan import TaskConfig
from common.randomness import public_generator
from common.tasks.text_classification import mean_pool
from common.trainable import TrainableModel
from simulations import public_start
from simulations.case_reports import CaseReports, write_reports
from simulations.public_start import PublicStart, fit_feature_map, public_base
from simulations.scenario import PublicStartConfig
from simulations.world import open_base
from tests.plans import make_plan
from tests.tiny_scenario import tiny_scenario

CONFIG = PublicStartConfig(sentences=48, batch_rows=16, epochs=2, warmup_steps=2, map_sentences=60, learning_rate=1e-3)
TASK = TaskConfig(labels=("none", "event"), positive_label="event", max_tokens=16, pool_layers=2)


@pytest.fixture
def start(tiny_base: Path) -> PublicStart:
    return PublicStart(tiny_base, "tiny", CONFIG, TASK, ComputeConfig())


@pytest.fixture(scope="module")
def adapted(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapted base that tests only read."""
    return public_base(PublicStart(tiny_base, "tiny", CONFIG, TASK, ComputeConfig()), tmp_path_factory.mktemp("bases"))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in folder.iterdir()}


def loaded(folder: Path, compute: ComputeConfig | None = None) -> Base:
    return load_base(folder, "adapted", compute or ComputeConfig())


def pooled_features(base: Base, texts: list[str], layers: int) -> np.ndarray:
    """Plain pooling of each text alone, without the classes under test."""
    rows = []
    for text in texts:
        ids = base.tokenizer(text, truncation=True, max_length=TASK.max_tokens, return_tensors="pt")["input_ids"]
        states = base.encoder(input_ids=ids, output_hidden_states=True).hidden_states[-layers:]
        rows.append(torch.cat([mean_pool(state, torch.ones_like(ids))[0] for state in states]).numpy())
    return np.array(rows, dtype=np.float64)


def rashes(count: int, seed: int) -> CaseReports:
    """Sentences that the tiny base's vocabulary can tell apart."""
    labels = public_generator(seed).integers(2, size=count)
    texts = tuple(f"the patient {('was well', 'had a rash')[label]}" for label in labels)
    return CaseReports(texts, labels, np.zeros((count, 4), dtype=np.int64))


# --- the map -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5])
def test_the_map_is_that_of_plain_numpy(power: float) -> None:
    rows = torch.randn(200, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor([9.0, 3.0, 1.0, 0.5, 0.0]) + 7
    config = PublicStartConfig(whitening_power=power, feature_norm=2.0)
    fitted = fit_feature_map(rows, config)
    plain = rows.numpy().astype(np.float64)
    centred = plain - plain.mean(0)
    left, singular, _ = np.linalg.svd(centred.T, full_matrices=False)  # another way to the same directions
    variances = singular**2 / (len(plain) - 1)
    matrix = left @ np.diag((variances + 0.02 * variances.mean()) ** -power) @ left.T
    expected = 2.0 * matrix / np.linalg.norm(centred @ matrix, axis=1).mean()
    np.testing.assert_allclose(fitted.mean.numpy(), plain.mean(0), rtol=1e-5)
    np.testing.assert_allclose(fitted.matrix.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_mapped_features_are_centred_and_of_the_wanted_norm() -> None:
    rows = torch.randn(300, 4, generator=torch.Generator().manual_seed(2)) + 3
    fitted = fit_feature_map(rows, CONFIG)
    mapped = (rows - fitted.mean) @ fitted.matrix
    assert mapped.mean(0).abs().max() < 1e-5
    assert mapped.norm(dim=1).mean() == pytest.approx(3.0, rel=1e-5)


def test_full_whitening_leaves_equal_variances() -> None:
    rows = torch.randn(4000, 3, generator=torch.Generator().manual_seed(3)) * torch.tensor([10.0, 1.0, 0.5])
    fitted = fit_feature_map(rows, PublicStartConfig(whitening_power=0.5, whitening_floor=1e-9))
    covariance = torch.cov(((rows - fitted.mean) @ fitted.matrix).T)
    assert torch.allclose(covariance / covariance[0, 0], torch.eye(3), atol=1e-3)


def test_the_written_map_was_fitted_on_the_further_sentences(adapted: Path) -> None:
    base = loaded(adapted)
    texts = write_reports(CONFIG.sentences + CONFIG.map_sentences, CONFIG.seed).texts[CONFIG.sentences :]
    expected = fit_feature_map(torch.from_numpy(pooled_features(base, list(texts), layers=2)), CONFIG)
    written = load_file(adapted / FEATURE_MAP_NAME)
    assert written["mean"].shape == (32,)
    assert written["matrix"].shape == (32, 32)
    torch.testing.assert_close(written["mean"], expected.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(written["matrix"], expected.matrix, rtol=1e-3, atol=1e-3)


# --- the base ------------------------------------------------------------------------------------------------------


def test_the_same_start_gives_the_same_bytes(start: PublicStart, adapted: Path, tmp_path: Path) -> None:
    torch.randn(7)  # whatever the global generator has been through
    assert digests(public_base(start, tmp_path)) == digests(adapted)


def test_all_layers_move_and_word_embeddings_stay(tiny_base: Path, adapted: Path) -> None:
    before, after = loaded(tiny_base).encoder.state_dict(), loaded(adapted).encoder.state_dict()
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    # A key's bias shifts all scores of a softmax alike, so only rounding gives it a gradient.
    assert {name for name in same if "key.bias" not in name} == {"embeddings.word_embeddings.weight"}
    assert all(torch.isfinite(value).all() for value in after.values())


def test_training_learns_the_labels(start: PublicStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    plain = public_start._loss

    def watched(*arguments: Any) -> torch.Tensor:
        loss = plain(*arguments)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(public_start, "_loss", watched)
    monkeypatch.setattr(public_start, "write_reports", rashes)
    config = CONFIG.model_copy(
        update={"epochs": 15, "learning_rate": 3e-3, "head_learning_rate": 5e-2, "mention_weight": 0.0}
    )
    public_base(replace(start, config=config), tmp_path)
    assert losses[0] == pytest.approx(16 * np.log(2), rel=1e-4)  # a head of zeros says one half
    # Targets of 0.05 and 0.95 leave this much to a perfect answer.
    assert losses[-1] == pytest.approx(-16 * (0.05 * np.log(0.05) + 0.95 * np.log(0.95)), rel=0.1)


def test_small_passes_add_up_to_the_same_step(
    start: PublicStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several steps: the very first of Adam only asks for the signs of the gradient.
    whole = public_base(start, tmp_path / "whole")
    monkeypatch.setattr(public_start, "_TOKENS_PER_PASS", 40)
    pieces = public_base(start, tmp_path / "pieces")
    name = "encoder.layer.0.output.dense.weight"
    torch.testing.assert_close(
        loaded(pieces).encoder.state_dict()[name], loaded(whole).encoder.state_dict()[name], rtol=0, atol=2e-5
    )


def test_progress_is_told_after_each_step(start: PublicStart, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    public_base(start, tmp_path, lambda done, total: told.append((done, total)))
    assert told == [(step, 6) for step in range(1, 7)]  # 48 sentences, 16 a step, twice


def test_bfloat16_passes_write_float32_weights(start: PublicStart, tmp_path: Path) -> None:
    folder = public_base(replace(start, compute=ComputeConfig(dtype="bfloat16")), tmp_path)
    weights = load_file(folder / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_it_is_a_base_like_any_other(tiny_base: Path, adapted: Path) -> None:
    assert (adapted / "config.json").read_bytes() == (tiny_base / "config.json").read_bytes()
    base = loaded(adapted)
    assert set(base.identity.files) == {path.name for path in adapted.iterdir()}
    plan = make_plan(task=TASK.model_dump())
    model = TrainableModel(base, plan, ComputeConfig())
    texts = ["the patient had a rash after taking drug", "no fever noted"]
    features = model.prepare(texts, ("head",)).at("head").values.numpy()
    written = load_file(adapted / FEATURE_MAP_NAME)
    expected = (pooled_features(loaded(adapted), texts, 2) - written["mean"].numpy()) @ written["matrix"].numpy()
    np.testing.assert_allclose(features, expected * plan.adapter.feature_scale, rtol=1e-3, atol=1e-3)


# --- kept, and whole or not at all ---------------------------------------------------------------------------------


def test_a_base_that_is_there_is_not_trained_again(
    start: PublicStart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = public_base(start, tmp_path)
    before = digests(folder)
    monkeypatch.setattr(public_start, "_make", lambda *_: pytest.fail("trained again"))
    assert public_base(start, tmp_path) == folder
    assert digests(folder) == before


@pytest.mark.parametrize("broken", ["_train", "fit_feature_map", "save_file"])
def test_an_interrupted_one_leaves_nothing(
    broken: str, start: PublicStart, adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(public_start, broken, interrupt)
        with pytest.raises(KeyboardInterrupt):
            public_base(start, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert digests(public_base(start, tmp_path)) == digests(adapted)


def test_what_a_killed_process_left_is_never_used(start: PublicStart, adapted: Path, tmp_path: Path) -> None:
    left = tmp_path / f".{start.name}.1.partial"
    left.mkdir()
    (left / "config.json").write_text("{")
    assert digests(public_base(start, tmp_path)) == digests(adapted)


def test_a_faster_process_wins(
    start: PublicStart, adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_while_another_finishes(*_: Any) -> None:
        (tmp_path / start.name).mkdir()
        (tmp_path / start.name / "theirs").touch()

    monkeypatch.setattr(public_start, "_make", make_while_another_finishes)
    folder = public_base(start, tmp_path)
    assert [path.name for path in folder.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    "change",
    [
        {"config": CONFIG.model_copy(update={"seed": 2})},
        {"config": CONFIG.model_copy(update={"whitening_power": 0.5})},
        {"task": TASK.model_copy(update={"pool_layers": 1})},
        {"task": TASK.model_copy(update={"max_tokens": 12})},
        {"compute": ComputeConfig(dtype="bfloat16")},
    ],
    ids=["seed", "power", "layers", "tokens", "dtype"],
)
def test_whatever_decides_is_in_the_name(change: dict[str, Any], start: PublicStart) -> None:
    assert replace(start, **change).name != start.name


def test_another_base_has_another_name(start: PublicStart, adapted: Path) -> None:
    assert replace(start, base_folder=adapted).name != start.name


def test_what_does_not_decide_is_not_in_the_name(start: PublicStart) -> None:
    other = replace(start, base_name="other", compute=ComputeConfig(threads=3, tokens_per_batch=128))
    assert other.name == start.name


# --- refused -------------------------------------------------------------------------------------------------------


def test_three_labels_are_refused_before_anything_is_made(start: PublicStart, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"two labels \(found 3\)") as error:
        public_base(replace(start, task=TaskConfig(labels=("a", "b", "c"))), tmp_path / "bases")
    assert "public_start" in error.value.hint
    assert not (tmp_path / "bases").exists()


def test_more_pooled_layers_than_there_are_is_refused(start: PublicStart, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most the base's 3 layers"):
        public_base(replace(start, task=TASK.model_copy(update={"pool_layers": 4})), tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- in a scenario -------------------------------------------------------------------------------------------------


def test_a_scenario_opens_the_adapted_base_under_another_name(tiny_base: Path, tmp_path: Path) -> None:
    plain = tiny_scenario(tmp_path, tiny_base, "base_name=tiny")
    changes = {"public_start": CONFIG, "output": str(tmp_path / "runs")}
    base = open_base(plain.model_copy(update=changes))
    assert base.identity.name == "tiny-public-start"
    assert FEATURE_MAP_NAME in base.identity.files
    (folder,) = (tmp_path / "runs" / "bases").iterdir()
    assert base.identity.files["model.safetensors"] == file_digest(folder / "model.safetensors")
    assert open_base(plain).identity.name == "tiny"
