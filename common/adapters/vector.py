"""Trained tensors as one flat vector, in one agreed order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import numpy as np
import numpy.typing as npt
import torch

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class VectorSpec:
    """Names and shapes of the tensors in a vector, in their order.

    Args:
        names: Tensor names, without repeats.
        shapes: One shape a name.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> VectorSpec:
        """The spec of these tensors, in their order."""
        return cls(tuple(tensors), tuple(tuple(tensor.shape) for tensor in tensors.values()))

    @property
    def slices(self) -> dict[str, slice]:
        """Where each tensor lies in the vector."""
        ends = list(accumulate(prod(shape) for shape in self.shapes))
        starts = [0, *ends]
        return {name: slice(start, end) for name, start, end in zip(self.names, starts, ends, strict=False)}

    @property
    def dimension(self) -> int:
        """d: length of the vector."""
        return sum(prod(shape) for shape in self.shapes)

    def read(self, tensors: Mapping[str, torch.Tensor]) -> Vector:
        """Copy the tensors out, shape `[d]`."""
        return flatten([tensors[name] for name in self.names])

    def write(self, tensors: Mapping[str, torch.Tensor], vector: npt.NDArray[np.floating]) -> None:
        """Copy a vector of shape `[d]` into the tensors, in place.

        Raises:
            ValueError: When the length is not d.
        """
        if vector.shape != (self.dimension,):
            raise ValueError(f"a vector of shape {vector.shape} does not fit {self.dimension} trained values")
        with torch.no_grad():
            for (name, place), shape in zip(self.slices.items(), self.shapes, strict=True):
                part = torch.from_numpy(
                    np.array(vector[place], dtype=np.float32)
                )  # a copy: messages are read-only views
                tensors[name].copy_(part.reshape(shape))

    def split(self, vector: npt.NDArray[np.floating]) -> dict[str, npt.NDArray[np.floating]]:
        """The tensors of a vector as arrays, by name."""
        return {
            name: vector[place].reshape(shape)
            for (name, place), shape in zip(self.slices.items(), self.shapes, strict=True)
        }

    def join(self, arrays: Mapping[str, npt.NDArray[np.floating]]) -> Vector:
        """The vector of these arrays, the inverse of `split`."""
        parts = [np.asarray(arrays[name], dtype=np.float32).ravel() for name in self.names]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def flatten(tensors: Sequence[torch.Tensor]) -> Vector:
    """Concatenate tensors into one float32 vector."""
    parts = [tensor.detach().to("cpu", torch.float32).reshape(-1).numpy() for tensor in tensors]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
