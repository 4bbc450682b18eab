import numpy as np
import pytest
import torch

from common.features import Batch, Features
from common.row_failures import is_failure, surviving


class PanicException(BaseException):
    """As compiled code raises it."""


def features() -> Features:
    offsets = np.array([0, 3, 5, 8, 8, 12])
    return Features(torch.arange(1, 13), offsets, np.array([1, 4, 6, 2, 1]))


def doubled(bad: int, error: BaseException, seen: list[tuple[int, ...]]):
    def compute(batch: Batch) -> torch.Tensor:
        seen.append(tuple(batch.values.shape))
        if (batch.values == bad).any():
            raise error
        return 2 * batch.values

    return compute


@pytest.mark.parametrize("error", [IndexError("a record"), RuntimeError(), MemoryError(), PanicException()])
def test_a_row_that_fails_is_left_out_and_the_others_are_as_before(error: BaseException) -> None:
    shapes: list[tuple[int, ...]] = []
    found = {}
    for batch in features().batches(np.arange(5), 64):
        for part, output in surviving(batch, doubled(4, error, shapes)):
            found |= {int(row): output[place].tolist() for row, place in zip(part.rows, part.places, strict=True)}
    expected = {}
    for batch in features().batches(np.array([0, 2, 3, 4]), 64):
        values = 2 * batch.values
        expected |= {int(row): values[place].tolist() for row, place in zip(batch.rows, batch.places, strict=True)}
    assert found == expected
    assert set(shapes) == {(8, 8), (64, 1)}


def test_a_row_alone_keeps_its_place_and_the_shape() -> None:
    (batch, *_) = features().batches(np.array([0, 1, 2]), 64)
    alone = batch.alone(1)
    assert alone.rows.tolist() == [batch.rows[1]]
    assert torch.equal(alone.values[alone.places[0]], batch.values[batch.places[1]])
    assert torch.equal(alone.mask[alone.places[0]], batch.mask[batch.places[1]])
    assert int(alone.mask.sum()) == int(batch.mask[batch.places[1]].sum()) + len(batch.mask) - 1
    (single,) = features().batches(alone.rows, 64)
    assert torch.equal(single.values, alone.values)
    assert torch.equal(single.mask, alone.mask)


def test_where_every_row_fails_there_is_nothing() -> None:
    (batch, *_) = features().batches(np.array([0]), 64)
    assert list(surviving(batch, doubled(1, ValueError(), []))) == []


class Stopped(BaseException):
    """As `StopRequestedError`."""


@pytest.mark.parametrize("wish", [KeyboardInterrupt(), SystemExit(), Stopped()])
def test_a_wish_to_stop_is_no_failure(wish: BaseException) -> None:
    (batch, *_) = features().batches(np.array([0]), 64)
    with pytest.raises(type(wish)):
        list(surviving(batch, doubled(1, wish, [])))
    assert not is_failure(wish)
