"""Before the first step: does this very model give the right gradients, and keep the records of a batch apart?"""

from __future__ import annotations

from collections.abc import Sequence

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
    """Compare per-record gradients by hooks with a plain loop, and records alone with records among others.

    The records are made up: of different lengths for the gradients, and up to the plan's longest for the others, so
    that a base which fails on long texts fails here, before a record is read.

    The trained values are moved off their start for the comparison, since where B is zero a wrong gradient of A would
    look right; they are put back afterwards.

    Returns:
        The largest relative error of a record's gradient.

    Raises:
        IntegrityError: When it is above 1e-3 in float32, or 0.15 in bfloat16, whose rounding alone gives a few percent;
            or when the base fails on a made-up text, or a text comes to other bits where others are beside it.
    """
    for stage in model.stages:
        check_apart(model, stage)
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


def check_apart(model: TrainableModel, stage: Stage) -> None:
    """Prepare made-up records alone and among others, at the same places, and compare them bit for bit.

    Raises:
        IntegrityError: When the base fails on one, or they differ.
    """
    lengths = (_LENGTHS[-1], 2 * model.plan.task.max_tokens)
    texts = _made_up_texts(model, lengths * 3, public_generator(0, "records apart"))
    among = model.prepare(texts, stages=(stage,))
    if among.lost.any():
        raise IntegrityError("the base model fails on plain texts", hint="do not use this base")
    for row, text in enumerate(texts[: len(lengths)]):
        beside = among.at(stage).select(np.array([row])).values
        if not torch.equal(model.prepare([text], stages=(stage,)).at(stage).values, beside):
            raise IntegrityError(
                "what this model makes of a record depends on the records beside it",
                hint="do not train with it: one patient would change what all others add",
            )


def _made_up_texts(model: TrainableModel, lengths: Sequence[int], generator: np.random.Generator) -> list[str]:
    limit = min(int(model.tokenizer.vocab_size), 1000)
    return [" ".join(model.tokenizer.convert_ids_to_tokens(generator.integers(5, limit, n).tolist())) for n in lengths]


def _made_up_batch(model: TrainableModel, stage: Stage, generator: np.random.Generator) -> Batch:
    texts = _made_up_texts(model, _LENGTHS, generator)
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
