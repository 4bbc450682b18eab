"""A public starting point: the base is fine-tuned on public sentences before any private row is touched.

Two things happen, once, at the coordinator. Every layer of the base is trained to tell the labels of synthetic case
reports apart (`simulations.case_reports`); their head is thrown away. Then a fixed affine map of the pooled features is
fitted on more such sentences: centred, partly whitened, and scaled to one mean norm, so that clipping and noise treat
directions alike. Both see public text only, cost no ε, and are part of the base's identity in the plan.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedTokenizerBase

from common.adapters.layers import check_pooled, layer_stack
from common.base_files import FEATURE_MAP_NAME, identify_base
from common.base_model import Base, load_base
from common.canonical import digest, file_digest
from common.compute import ComputeConfig
from common.errors import ConfigError
from common.features import Batch, Features, Rows
from common.plan import TaskConfig
from common.randomness import public_generator
from common.tasks.text_classification import EncoderPart, FeatureMap, MeanPoolClassifier, Pooling
from simulations.case_reports import PHRASES, CaseReports, write_reports
from simulations.scenario import PublicStartConfig

OnStep = Callable[[int, int], None]
"""Called after each training step with the steps done and the steps in all."""

_CODE_VERSION = 1
"""Raised when this module comes to make another base of the same settings, so that no older one is taken for it."""

_WEIGHT_DECAY = 0.01
_TOKENS_PER_PASS = 512
"""Sentences differ in length: passes of a few rows of like length pad a third less than one of a whole step."""


@dataclass(frozen=True)
class PublicStart:
    """Everything that decides what the adapted base will be.

    Attributes:
        base_folder: The base to start from, as `find_base` gives it.
        base_name: What messages call it.
        config: How to train.
        task: Longest text and pooled layers are used; it must have two labels.
        compute: Speed settings; with dtype bfloat16 the passes use autocast, the weights stay float32.
    """

    base_folder: Path
    base_name: str
    config: PublicStartConfig
    task: TaskConfig
    compute: ComputeConfig

    @property
    def name(self) -> str:
        """Name of the adapted base's folder: a digest of all that decides, base files and phrases included."""
        task, compute = self.task, self.compute
        parts = {
            "code": [_CODE_VERSION, torch.__version__, transformers.__version__],
            "base": identify_base(self.base_folder, "").files,
            "phrases": file_digest(PHRASES),
            "config": self.config.model_dump(),
            "task": [task.max_tokens, task.pool_layers],
            "compute": [compute.device, compute.dtype],
        }
        return digest(parts)[:24]


def public_base(start: PublicStart, cache: Path, on_step: OnStep | None = None) -> Path:
    """The folder of the adapted base; made on the first call, found on later ones.

    Guarantees:
        Reads the base and the package's own phrases, nothing else. The folder appears whole or not at all; two
        processes that make it at once agree. The same start gives the same base on one machine.

    Edge cases:
        Another number of threads may change the last bits, and so the digest in a plan; a folder that exists is kept.

    Args:
        start: What to make.
        cache: Folder of adapted bases; made when missing.
        on_step: Told about progress; not called when the base was there.

    Returns:
        A folder for `load_base`: config, tokenizer, `model.safetensors`, `feature_map.safetensors`.

    Raises:
        ConfigError: When the task has not two labels, pools more layers than there are, or the base cannot be loaded.
    """
    _check_labels(start.task)
    folder = cache / start.name
    if not folder.is_dir():
        partial = cache / f".{start.name}.{os.getpid()}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            _make(start, partial, on_step or (lambda _done, _total: None))
            _put(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def fit_feature_map(features: torch.Tensor, config: PublicStartConfig) -> FeatureMap:
    """Centre, whiten in part, scale to a mean norm.

    With covariance U diag(v) U', the matrix is s · U diag((v + floor · mean v)^-power) U'. Power 0.5 whitens fully, 0
    not at all; s makes the mean norm of these rows `feature_norm`.

    Args:
        features: Pooled features of public rows, shape `[N, F]`, N at least 2.
        config: Power, floor and norm.
    """
    rows = features.to(torch.float64)
    mean = rows.mean(0)
    variances, directions = torch.linalg.eigh(torch.cov((rows - mean).T))
    scales = (variances.clamp(min=0) + config.whitening_floor * variances.mean()).pow(-config.whitening_power)
    matrix = directions @ torch.diag(scales) @ directions.T
    norm = ((rows - mean) @ matrix).norm(dim=1).mean()
    return FeatureMap(mean.float(), (config.feature_norm / norm * matrix).float())


def _check_labels(task: TaskConfig) -> None:
    if len(task.labels) != 2:
        raise ConfigError(
            f"a public start needs a task with two labels (found {len(task.labels)})",
            hint="its sentences only tell adverse drug events from the rest; leave out [public_start]",
        )


def _make(start: PublicStart, folder: Path, on_step: OnStep) -> None:
    """Train, fit the map, write everything."""
    config = start.config
    base = load_base(start.base_folder, start.base_name, start.compute.model_copy(update={"dtype": "float32"}))
    check_pooled(base.encoder, start.task.pool_layers)
    reports = write_reports(config.sentences + config.map_sentences, config.seed)
    ids = _token_ids(base.tokenizer, reports, start)
    _train(_classifier(base, reports, layers=1), ids, reports, start, on_step)
    rows = np.arange(config.sentences, len(reports.texts))
    pooled = _pooled(_classifier(base, reports, start.task.pool_layers), ids.select(rows), start.compute)
    _write(folder, start.base_folder, base.encoder, fit_feature_map(pooled, config))


def _token_ids(tokenizer: PreTrainedTokenizerBase, reports: CaseReports, start: PublicStart) -> Features:
    encoded = tokenizer(list(reports.texts), truncation=True, max_length=start.task.max_tokens)["input_ids"]
    flat = torch.tensor([token for row in encoded for token in row], device=start.compute.device)
    return Features(flat, np.cumsum([0, *(len(row) for row in encoded)]))


def _classifier(base: Base, reports: CaseReports, layers: int) -> MeanPoolClassifier:
    """The encoder under a head with one output for the label and one for each mention."""
    part = EncoderPart(base.encoder, tuple(layer_stack(base.encoder).layers), given_hidden=False)
    outputs = 1 + reports.mentions.shape[1]
    classifier = MeanPoolClassifier(part, base.hidden_size * layers, outputs, Pooling(layers))
    return classifier.to(next(base.encoder.parameters()).device)


# --- training ------------------------------------------------------------------------------------------------------


def _train(model: MeanPoolClassifier, ids: Features, reports: CaseReports, start: PublicStart, on_step: OnStep) -> None:
    """AdamW over all layers and a passing head; the rates rise, then fall in a line to 0."""
    config, compute = start.config, start.compute
    targets = _targets(reports, config).to(compute.device)
    steps = list(_steps(config))
    optimizer = _optimizer(model, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / max(1, config.warmup_steps)) * (1 - step / len(steps))
    )
    for done, rows in enumerate(steps, start=1):
        optimizer.zero_grad()
        for batch in ids.compact_batches(rows, _TOKENS_PER_PASS):
            loss = _loss(model, batch, targets, start)
            (loss / len(rows)).backward()
        optimizer.step()
        schedule.step()
        on_step(done, len(steps))


def _steps(config: PublicStartConfig) -> Iterator[Rows]:
    """Rows of each step: every sentence once an epoch, in a new order."""
    for epoch in range(config.epochs):
        order = public_generator(config.seed, "public start", epoch).permutation(config.sentences)
        for first in range(0, config.sentences, config.batch_rows):
            yield order[first : first + config.batch_rows]


def _targets(reports: CaseReports, config: PublicStartConfig) -> torch.Tensor:
    """Label and mentions as smoothed probabilities, shape `[N, 1 + mentions]`."""
    known: npt.NDArray[np.int64] = np.column_stack([reports.labels, reports.mentions])
    return torch.from_numpy(known).float() * (1 - config.label_smoothing) + config.label_smoothing / 2


def _optimizer(model: MeanPoolClassifier, config: PublicStartConfig) -> torch.optim.Optimizer:
    model.encoder.requires_grad_(True)
    # Most words of a vocabulary never occur here: moving the few that do would pull them away from the others.
    model.encoder.get_input_embeddings().weight.requires_grad_(False)  # type: ignore[operator]
    encoder = [parameter for parameter in model.encoder.parameters() if parameter.requires_grad]
    groups = [
        {"params": encoder, "lr": config.learning_rate},
        {"params": list(model.head.parameters()), "lr": config.head_learning_rate},
    ]
    return torch.optim.AdamW(groups, weight_decay=_WEIGHT_DECAY)


def _loss(model: MeanPoolClassifier, batch: Batch, targets: torch.Tensor, start: PublicStart) -> torch.Tensor:
    """Cross-entropy of the label, plus that of the mentions with their weight; summed over the batch."""
    with _autocast(start.compute):
        pooled = model.head_inputs(batch.values, batch.mask)
    wanted = targets[torch.from_numpy(batch.rows).to(targets.device)]
    losses = binary_cross_entropy_with_logits(model.head(pooled.float()), wanted, reduction="none").sum(0)
    return losses[0] + start.config.mention_weight * losses[1:].sum()


def _autocast(compute: ComputeConfig) -> torch.autocast:
    return torch.autocast(compute.device, torch.bfloat16, enabled=compute.dtype == "bfloat16")


@torch.no_grad()
def _pooled(model: MeanPoolClassifier, ids: Features, compute: ComputeConfig) -> torch.Tensor:
    """Pooled features of all rows, shape `[N, F]`, on the CPU."""
    pooled = torch.empty((len(ids), model.head.in_features))
    for batch in ids.compact_batches(np.arange(len(ids)), _TOKENS_PER_PASS):
        with _autocast(compute):
            pooled[torch.from_numpy(batch.rows)] = model.head_inputs(batch.values, batch.mask).float().cpu()
    return pooled


# --- files ---------------------------------------------------------------------------------------------------------


def _write(folder: Path, base_folder: Path, encoder: nn.Module, feature_map: FeatureMap) -> None:
    """The adapted base as a folder that `load_base` reads, on disk before this returns."""
    encoder.save_pretrained(folder)  # type: ignore[operator]
    for name in identify_base(base_folder, "").files:
        if not name.endswith(".safetensors"):  # config too: save_pretrained wrote it without dropout
            shutil.copyfile(base_folder / name, folder / name)
    save_file({"mean": feature_map.mean, "matrix": feature_map.matrix.contiguous()}, folder / FEATURE_MAP_NAME)
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _put(partial: Path, folder: Path) -> None:
    """Rename into place; another process may have been faster, and its base is as good."""
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
