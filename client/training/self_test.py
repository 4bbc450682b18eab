"""Before the first step: do the hooks give the right gradients for this very model?"""

from __future__ import annotations

import numpy as np
import torch

from client.training.loop import recording
from client.training.per_example import loop_gradients
from common.errors import IntegrityError
from common.features import Batch
from common.randomness import public_generator
from common.trainable import Stage, TrainableModel

_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.15}
_LENGTHS = (3, 9, 6)


def check_gradients(model: TrainableModel) -> float:
    """Compare per-record gradients by hooks with a plain loop on made-up records of different lengths.

    The trained values are moved off their start for the comparison, since where B is zero a wrong gradient of A would
    look right; they are put back afterwards.

    Returns:
        The largest relative error of a record's gradient.

    Raises:
        IntegrityError: When it is above 1e-3 in float32, or 0.15 in bfloat16, whose rounding alone gives a few percent.
    """
    before, basis = model.read(), model.basis()
    generator = public_generator(0, "gradient self-test")
    try:
        moved = before + generator.normal(0.0, 0.02, before.shape).astype(np.float32)
        model.load(moved, basis)
        error = max(_relative_error(model, stage, generator) for stage in model.stages)
    finally:
        model.load(before, basis)
    if not error <= _TOLERANCE[model.compute.dtype]:
        raise IntegrityError(
            f"per-record gradients of this model differ from a plain loop by {error:.1e}",
            hint="do not train with it: the clip bound, and so the privacy guarantee, would not hold",
        )
    return error


def _made_up_batch(model: TrainableModel, stage: Stage, generator: np.random.Generator) -> Batch:
    limit = min(int(model.tokenizer.vocab_size), 1000)
    texts = [
        " ".join(model.tokenizer.convert_ids_to_tokens(generator.integers(5, limit, n).tolist())) for n in _LENGTHS
    ]
    features = model.prepare(texts, stages=(stage,)).at(stage)
    return next(features.compact_batches(np.arange(len(_LENGTHS)), 1 << 30))


def _relative_error(model: TrainableModel, stage: Stage, generator: np.random.Generator) -> float:
    batch, parameters, pooled = _made_up_batch(model, stage, generator), model.parameters(stage), stage == "head"
    labels = torch.from_numpy(generator.integers(0, len(model.plan.task.labels), len(_LENGTHS))).to(
        model.compute.device
    )
    with recording(model) as gradients:
        ours = gradients(batch, labels, parameters, pooled=pooled)
    loop = loop_gradients(model.module, batch, labels, parameters, pooled=pooled)
    return float(((ours - loop).norm(dim=1) / loop.norm(dim=1).clamp(min=1e-12)).max())
