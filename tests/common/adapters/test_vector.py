"""Tensors as one flat vector."""

import numpy as np
import pytest
import torch

from common.adapters.vector import VectorSpec, flatten

TENSORS = {"b": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "a": torch.tensor([5.0])}


def test_order_is_that_of_the_tensors() -> None:
    spec = VectorSpec.of(TENSORS)
    assert spec.names == ("b", "a")
    assert spec.slices == {"b": slice(0, 4), "a": slice(4, 5)}
    assert spec.read(TENSORS).tolist() == [1, 2, 3, 4, 5]
    assert spec.dimension == 5


def test_write_and_split_undo_read() -> None:
    spec = VectorSpec.of(TENSORS)
    copies = {name: torch.zeros_like(value) for name, value in TENSORS.items()}
    spec.write(copies, np.array([1, 2, 3, 4, 5], dtype=np.float64))
    assert all(torch.equal(copies[name], TENSORS[name]) for name in TENSORS)
    assert spec.join(spec.split(spec.read(TENSORS))).tolist() == [1, 2, 3, 4, 5]


def test_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit 5"):
        VectorSpec.of(TENSORS).write(TENSORS, np.zeros(4))


def test_nothing_is_an_empty_vector() -> None:
    assert flatten([]).shape == (0,)
    assert VectorSpec((), ()).join({}).shape == (0,)
