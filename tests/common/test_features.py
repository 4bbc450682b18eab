"""Ragged rows and their padded batches."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.features import Features, rung, text_keys


def ragged(lengths: list[int], width: int = 0) -> Features:
    """Row i holds the value i + 1, `lengths[i]` times."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = torch.from_numpy(np.repeat(np.arange(1, len(lengths) + 1), lengths))
    keys = text_keys(flat.numpy(), offsets)
    return Features(flat if not width else flat.unsqueeze(1).repeat(1, width).float(), offsets, keys)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 40))
def test_each_row_comes_once_with_its_own_tokens(lengths: list[int], limit: int) -> None:
    seen = []
    for batch in ragged(lengths).compact_batches(np.arange(len(lengths)), limit):
        assert batch.values.shape == batch.mask.shape
        assert len(batch.rows) == 1 or batch.mask.numel() <= limit
        for row, values, mask in zip(batch.rows, batch.values, batch.mask, strict=True):
            assert int(mask.sum()) == lengths[row]
            assert values[mask.bool()].tolist() == [row + 1] * lengths[row]
            assert not values[~mask.bool()].any()
            seen.append(int(row))
    assert sorted(seen) == list(range(len(lengths)))


def test_hidden_states_are_padded_with_zeros() -> None:
    (batch,) = ragged([1, 3], width=2).compact_batches(np.arange(2), 100)
    assert batch.values.shape == (2, 3, 2)
    assert batch.values[batch.rows.tolist().index(0), 1:].abs().sum() == 0


def test_only_the_rows_asked_for_come() -> None:
    batches = ragged([2, 2, 2]).batches(np.array([2, 0]), 100)
    assert sorted(int(row) for batch in batches for row in batch.rows) == [0, 2]


def test_select_copies_rows_in_order() -> None:
    chosen = ragged([1, 2, 3], width=2).select(np.array([2, 0]))
    assert chosen.lengths.tolist() == [3, 1]
    assert chosen.values[:, 0].tolist() == [3, 3, 3, 1]


def test_no_rows_give_no_batches() -> None:
    assert list(ragged([1]).batches(np.zeros(0, dtype=np.int64), 10)) == []
    assert len(ragged([1]).select(np.zeros(0, dtype=np.int64))) == 0


def test_features_do_not_print_their_values() -> None:
    assert repr(ragged([7])) == "Features(1 rows)"


@given(st.lists(st.integers(1, 70), min_size=1, max_size=30), st.integers(1, 300))
def test_shapes_are_public_and_filling_is_one_empty_token(lengths: list[int], limit: int) -> None:
    features, seen = ragged(lengths), []
    for batch in features.batches(np.arange(len(lengths)), limit):
        rungs = {rung(lengths[row]) for row in batch.rows}
        (width,) = rungs
        assert batch.values.shape == batch.mask.shape == (max(1, limit // width), width)
        for row, place in zip(batch.rows, batch.places, strict=True):
            assert batch.values[place][batch.mask[place].bool()].tolist() == [row + 1] * lengths[row]
            seen.append(int(row))
        filling = np.setdiff1d(np.arange(len(batch.mask)), batch.places)
        assert not batch.values[filling].any()
        assert batch.mask[filling, 0].all()
        assert not batch.mask[filling, 1:].any()
    assert sorted(seen) == list(range(len(lengths)))


def test_a_row_is_not_padded_beyond_the_longest_allowed() -> None:
    features = Features(ragged([35]).values, np.array([0, 35]), np.array([7]), longest=40)
    (batch,) = features.batches(np.array([0]), 10)
    assert batch.mask.shape == (1, 40)


def test_rungs_by_hand() -> None:
    lengths = (0, 1, 2, 8, 9, 32, 33, 48, 49, 64, 65, 96, 97, 512)
    assert [rung(length) for length in lengths] == [1, 1, 8, 8, 16, 32, 48, 48, 64, 64, 96, 96, 128, 512]


def test_join_puts_rows_one_after_the_other() -> None:
    joined = Features.join([ragged([1, 2]), ragged([3])])
    assert joined.lengths.tolist() == [1, 2, 3]
    assert joined.values.tolist() == [1, 2, 2, 1, 1, 1]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(8, 300), st.data())
def test_a_row_has_the_same_place_whoever_else_is_there(lengths: list[int], limit: int, data: st.DataObject) -> None:
    features = ragged(lengths)
    some = np.array(sorted(data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1))))
    assert places(features, some, limit).items() <= places(features, np.arange(len(lengths)), limit).items()
    without = features.select(some)  # not only drawn less often: the others are not in the data at all
    assert list(places(without, np.arange(len(some)), limit).values()) == list(places(features, some, limit).values())


def places(features: Features, rows: np.ndarray, limit: int) -> dict[int, int]:
    found = {}
    for batch in features.batches(rows, limit):
        assert len(set(batch.places.tolist())) == len(batch.places)
        found |= dict(zip(batch.rows.tolist(), batch.places.tolist(), strict=True))
    return dict(sorted(found.items()))


def test_equal_texts_have_one_place_and_come_one_after_the_other() -> None:
    features = Features(torch.tensor([5, 5, 6]), np.array([0, 1, 2, 3]), text_keys(np.array([5, 5, 6]), np.arange(4)))
    batches = list(features.batches(np.arange(3), 64))
    assert [batch.rows.tolist() for batch in batches if 1 in batch.rows] == [[1]]
    assert len({places(features, np.array([row]), 64)[row] for row in (0, 1)}) == 1


def test_rows_without_keys_get_no_place() -> None:
    with pytest.raises(ValueError, match="without keys"):
        list(Features(torch.tensor([1]), np.array([0, 1])).batches(np.array([0]), 8))
