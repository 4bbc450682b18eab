"""What both sides compute with: a frozen base, its adapter and its head, loaded from one vector.

One `TrainableModel` serves any number of sites and the coordinator's evaluation on one machine, since everything that
differs between them is a vector (`load`) or their own features (`prepare`). The frozen base exists once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import structlog
import torch
from peft import PeftModel

from common.adapters.files import export_adapter
from common.adapters.layers import adapted_layers, check_pooled, layer_stack
from common.adapters.lora import attach, plain_name
from common.adapters.vector import Vector, VectorSpec
from common.base_model import Base, torch_dtype
from common.compute import ComputeConfig
from common.errors import ConfigError
from common.features import Batch, Features, Rows
from common.frozen_prefix import cut_encoder
from common.plan import PlanSections
from common.row_failures import surviving
from common.tasks.text_classification import EncoderPart, MeanPoolClassifier, Pooling
from common.token_ids import TextReader

_log = structlog.get_logger()

Stage = Literal["head", "full"]
HEAD_NAMES = ("head.weight", "head.bias")


@dataclass(frozen=True, repr=False)
class Prepared:
    """A party's texts as the model wants them.

    Attributes:
        hidden: For the full stage.
        pooled: For the head stage.
        lost: Rows on which the base failed, shape `[N]`; they are to add nothing, and their features mean nothing.
    """

    hidden: Features | None
    pooled: Features | None
    lost: npt.NDArray[np.bool_]

    def at(self, stage: Stage) -> Features:
        """The features that a stage reads."""
        features = self.pooled if stage == "head" else self.hidden
        if features is None:
            raise ValueError(f"features of stage {stage} were not prepared")
        return features

    def select(self, rows: Rows) -> Prepared:
        """The features of some rows, in the given order."""
        hidden = None if self.hidden is None else self.hidden.select(rows)
        return Prepared(hidden, None if self.pooled is None else self.pooled.select(rows), self.lost[rows])


class TrainableModel:
    """A frozen base with an adapter and a head.

    Args:
        base: Loaded base; the adapter is put into its encoder.
        plan: Draft or finished plan; task, adapter, seed and rounds are used.
        compute: Speed settings.

    Raises:
        ConfigError: When plan and base do not fit.
    """

    def __init__(self, base: Base, plan: PlanSections, compute: ComputeConfig) -> None:
        self.plan = plan
        self.compute = compute
        self.tokenizer = base.tokenizer
        _check_positions(base, plan.task.max_tokens)
        self._width = base.hidden_size
        self.peft: PeftModel = attach(base.encoder, plan.adapter, plan.seed)
        self._encoder = self.peft.get_base_model()
        self._reader = TextReader(base.tokenizer, plan.task.max_tokens, _embeddings(base), compute.device)
        check_pooled(self._encoder, plan.task.pool_layers)
        self._parts = cut_encoder(self._encoder, self._cut())
        layers = tuple(layer_stack(self._encoder).layers)
        module = self._parts.suffix if self._parts else self._encoder
        self.module = MeanPoolClassifier(
            EncoderPart(module, layers, given_hidden=self._parts is not None),
            base.hidden_size * plan.task.pool_layers,
            len(plan.task.labels),
            Pooling(plan.task.pool_layers, plan.adapter.feature_scale, base.feature_map),
        ).to(compute.device)
        self._tensors = self._trained_tensors()
        self._frozen = self._frozen_factors()
        self.spec = VectorSpec.of(self._tensors)
        self.basis_spec = VectorSpec.of(self._frozen)
        self.start = self.read()
        self._first_basis = self.basis()

    @property
    def prefix_is_cached(self) -> bool:
        """Whether outputs of the frozen layers are kept (else token ids are)."""
        return self._parts is not None

    def _cut(self) -> int:
        """Layers that are below the lowest adapter, and whose outputs the head does not read."""
        count = len(layer_stack(self._encoder).layers)
        lowest = count if self.plan.adapter.method == "head" else adapted_layers(self._encoder, self.plan.adapter).start
        return min(lowest, count - max(1, self.plan.task.pool_layers - 1))

    def _trained_tensors(self) -> dict[str, torch.Tensor]:
        adapter = {plain_name(name): value for name, value in self.peft.named_parameters() if value.requires_grad}
        head = dict(zip(HEAD_NAMES, (self.module.head.weight, self.module.head.bias), strict=True))
        return {**dict(sorted(adapter.items())), **head}

    def _frozen_factors(self) -> dict[str, torch.Tensor]:
        """The A matrices that are fixed, in order; only `lora-b` has any that matter."""
        if self.plan.adapter.method != "lora-b":
            return {}
        named = {plain_name(name): value for name, value in self.peft.named_parameters() if ".lora_A." in name}
        return dict(sorted(named.items()))

    @property
    def groups(self) -> dict[str, slice]:
        """Slices of the trained vector: `adapter` (absent when only the head is trained) and `head`."""
        size = self.spec.dimension - sum(self._tensors[name].numel() for name in HEAD_NAMES)
        head = {"head": slice(size, self.spec.dimension)}
        return {"adapter": slice(0, size), **head} if size else head

    def stage(self, round_number: int) -> Stage:
        """What round `round_number` (from 1) trains."""
        return "head" if self.plan.adapter.method == "head" or round_number <= self.plan.adapter.head_rounds else "full"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that a whole run passes through."""
        return tuple(sorted({self.stage(1), self.stage(self.plan.rounds)}, reverse=True))

    def active(self, stage: Stage) -> slice:
        """The part of the trained vector that a stage trains."""
        return self.groups["head"] if stage == "head" else slice(0, self.spec.dimension)

    def parameters(self, stage: Stage) -> list[torch.Tensor]:
        """The trained tensors of a stage, in the vector's order."""
        return [tensor for name, tensor in self._tensors.items() if stage == "full" or name in HEAD_NAMES]

    def adapter_parameters(self, stage: Stage) -> list[torch.Tensor]:
        """The trained tensors of a stage without the head's; none in the head stage."""
        return [] if stage == "head" else [tensor for name, tensor in self._tensors.items() if name not in HEAD_NAMES]

    def read(self) -> Vector:
        """The trained values now, shape `[d]`."""
        return self.spec.read(self._tensors)

    def basis(self) -> Vector:
        """The fixed A matrices now, shape `[b]`."""
        return self.basis_spec.read(self._frozen)

    def load(self, weights: Vector, basis: Vector) -> None:
        """Set the trained values and the fixed A matrices; an empty `basis` means those of the plan's seed."""
        self.spec.write(self._tensors, weights)
        self.basis_spec.write(self._frozen, basis if basis.size else self._first_basis)

    def export(
        self, base_name: str, weights: npt.NDArray[np.floating], basis: npt.NDArray[np.floating], folder: Path
    ) -> None:
        """Load these values and write them as a PEFT folder that appears whole or not at all."""
        self.load(weights.astype(np.float32), basis.astype(np.float32))
        task = self.plan.task
        notes = {
            "task": task.kind,
            "labels": list(task.labels),
            "pooling": "mean",
            "pool_layers": task.pool_layers,
            "max_tokens": task.max_tokens,
        }
        export_adapter(self.peft, self.module.plain_head(), base_name, notes, folder)

    def tokenize(self, texts: Sequence[str]) -> Features:
        """Token ids of the texts, cut at the plan's length; a text that the tokenizer fails on has none."""
        return self._reader.read(texts)[0]

    def prepare(self, texts: Sequence[str], stages: Sequence[Stage] = ()) -> Prepared:
        """Everything about the texts that does not change during training, computed once.

        Args:
            texts: One string a row.
            stages: The stages that will read the result; all of the plan's when empty.

        Guarantees:
            No text makes this fail: one that the base fails on is marked as lost. What the others come to is the same
            bits as without it.
        """
        wanted = tuple(stages) or self.stages
        ids, lost = self._reader.read(texts)
        hidden = self._below_cut(ids, lost)
        pooled = self._pool(hidden, lost) if "head" in wanted else None
        if lost.any():
            _log.warning("the base fails on some texts; they add nothing", texts=int(lost.sum()))
        return Prepared(hidden if "full" in wanted else None, pooled, lost)

    @torch.no_grad()
    def _below_cut(self, ids: Features, lost: npt.NDArray[np.bool_]) -> Features:
        """Outputs of the frozen layers, zero for a row that they fail on, which is marked."""
        parts = self._parts
        if parts is None:
            return ids
        dtype, device = torch_dtype(self.compute), self.compute.device
        kept = torch.zeros((len(ids.values), self._width), dtype=dtype, device=device)

        def below(batch: Batch) -> torch.Tensor:
            states: torch.Tensor = parts.prefix(input_ids=batch.values, attention_mask=batch.mask).last_hidden_state
            return states

        for batch, states in self._computed(ids, lost, below):
            for row, place in zip(batch.rows, batch.places, strict=True):
                start, end = ids.offsets[row], ids.offsets[row + 1]
                kept[start:end] = states[place, : end - start]
        return Features(kept, ids.offsets, ids.keys, ids.longest)

    @torch.no_grad()
    def _pool(self, hidden: Features, lost: npt.NDArray[np.bool_]) -> Features:
        """What the head reads of the base before any training, as rows of one token."""
        size = self.module.head.in_features
        pooled = torch.zeros((len(hidden), size), dtype=torch.float32, device=self.compute.device)

        def read(batch: Batch) -> torch.Tensor:
            return self.module.head_inputs(batch.values, batch.mask)

        with self._at_start():
            for batch, inputs in self._computed(hidden, lost, read):
                pooled[torch.from_numpy(batch.rows)] = inputs[torch.from_numpy(batch.places)]
        return Features(pooled, np.arange(len(hidden) + 1), hidden.keys)

    @contextmanager
    def _at_start(self) -> Iterator[None]:
        """The untrained model for a while: other sites may have left their values in the shared tensors."""
        now, basis = self.read(), self.basis()
        self.load(self.start, self._first_basis)
        try:
            yield
        finally:
            self.load(now, basis)

    def _computed(
        self, features: Features, lost: npt.NDArray[np.bool_], compute: Callable[[Batch], torch.Tensor]
    ) -> Iterator[tuple[Batch, torch.Tensor]]:
        """What rows compute to that are not lost, in batches of public shapes; those that fail are lost from now on."""
        failed = ~lost
        for batch in features.batches(np.flatnonzero(~lost), self.compute.tokens_per_batch):
            for part, output in surviving(batch, compute):
                yield part, output
                failed[part.rows] = False
        lost |= failed

    @torch.no_grad()
    def logits(self, features: Features, stage: Stage, rows: Rows | None = None) -> Vector:
        """Logits of rows under the loaded values, shape `[N, K]`."""
        chosen = np.arange(len(features)) if rows is None else rows
        result = np.empty((len(features), self.module.head.out_features), dtype=np.float32)
        for batch in features.compact_batches(chosen, self.compute.tokens_per_batch):
            logits = self.module(batch.values, batch.mask, pooled=stage == "head")
            result[batch.rows] = logits[torch.from_numpy(batch.places)].cpu().numpy()
        return result[chosen]


def _check_positions(base: Base, max_tokens: int) -> None:
    """Refuse a plan whose longest text the base has no positions for: it would fail on long texts alone.

    Raises:
        ConfigError: When it has fewer.
    """
    if max_tokens > base.positions:
        raise ConfigError(
            f"task.max_tokens must be at most the base's {base.positions} positions (found {max_tokens})",
            hint="lower task.max_tokens",
        )


def _embeddings(base: Base) -> int:
    return int(base.encoder.config.vocab_size)  # type: ignore[union-attr,arg-type]
