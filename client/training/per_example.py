"""One gradient for each record, by Opacus' hooks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from opacus.grad_sample import GradSampleModule
from torch.nn import functional

from common.features import Batch
from common.tasks.text_classification import MeanPoolClassifier


class PerExampleGradients:
    """Gradients of the cross-entropy of each record with respect to the trained tensors.

    Guarantees:
        Row i depends on record i only: batches have public shapes and a record its own place in them
        (`Features.batches`), padding is masked, dropout is 0, and no layer mixes records (batch norm is refused by the
        plan's check). Nothing is left behind: the hooks' buffers are cleared before and after each call, so that a call
        that failed half way cannot leak into the next.

    Args:
        module: Classifier whose trained tensors are marked. It is put into training mode, in which alone hooks record.
    """

    def __init__(self, module: MeanPoolClassifier) -> None:
        self._wrapped = GradSampleModule(module, loss_reduction="sum")
        self._wrapped.train()

    def close(self) -> None:
        """Take the hooks off the module again."""
        self._wrapped.remove_hooks()

    def __call__(
        self, batch: Batch, labels: torch.Tensor, parameters: Sequence[torch.Tensor], *, pooled: bool
    ) -> torch.Tensor:
        """Gradients `[k, d]` in float32, in the order of `parameters`.

        Args:
            batch: k padded records and the filling that makes the batch's shape public.
            labels: The records' labels, shape `[k]`.
            parameters: The trained tensors of the stage, d values together.
            pooled: Whether the batch holds pooled features (head stage).
        """
        self._clear()
        try:
            places = torch.from_numpy(batch.places).to(labels.device)
            filled = labels.new_zeros(len(batch.mask)).index_put((places,), labels)
            self._backward(batch, filled, pooled)
            return torch.cat([_grad_sample(tensor, len(filled)) for tensor in parameters], dim=1)[places]
        finally:
            self._clear()

    def _backward(self, batch: Batch, labels: torch.Tensor, pooled: bool) -> None:
        logits = self._wrapped(batch.values, batch.mask, pooled=pooled)
        with warnings.catch_warnings():
            # Opacus hooks modules whose inputs need no gradient; torch finds that worth a warning at every step.
            warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
            functional.cross_entropy(logits, labels, reduction="sum").backward()

    def _clear(self) -> None:
        self._wrapped.zero_grad(set_to_none=True)
        for layer in self._wrapped.modules():  # what a forward pass that failed half way has left with the hooks
            for name in ("activations", "max_batch_len"):
                if hasattr(layer, name):
                    delattr(layer, name)
        for tensor in self._wrapped.parameters():
            if hasattr(tensor, "_forward_counter"):
                tensor._forward_counter = 0  # noqa: SLF001 - Opacus has no other way to forget it


def _grad_sample(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    recorded = getattr(tensor, "grad_sample", None)
    if not isinstance(recorded, torch.Tensor) or recorded.shape[0] != rows:
        raise RuntimeError("a trained tensor has no gradient for each record; its layer has no per-sample rule")
    return recorded.reshape(rows, -1).to(torch.float32)


def loop_gradients(
    module: MeanPoolClassifier, batch: Batch, labels: torch.Tensor, parameters: Sequence[torch.Tensor], *, pooled: bool
) -> torch.Tensor:
    """The same gradients by a plain loop with autograd, one record at a time and without its padding: the oracle."""
    rows = []
    for index in range(len(labels)):
        length = int(batch.mask[index].sum())
        values, mask = batch.values[index : index + 1, :length], batch.mask[index : index + 1, :length]
        loss = functional.cross_entropy(module(values, mask, pooled=pooled), labels[index : index + 1])
        parts = torch.autograd.grad(loss, list(parameters))
        rows.append(torch.cat([part.reshape(-1).to(torch.float32) for part in parts]))
    return torch.stack(rows)
