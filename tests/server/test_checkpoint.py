import json
import math

import numpy as np
import pytest
from safetensors.numpy import load, save

import server.checkpoint
from common.canonical import canonical_bytes
from common.errors import IntegrityError
from server.checkpoint import CHECKPOINT_NAME, load_checkpoint, save_checkpoint
from server.state import BestModel, Evaluation, GlobalModel, RoundSummary, ServerState

PLAN = "ab" * 32


def summary(number, validation=None):
    return RoundSummary(
        number, 2, True, {"malformed": 1}, {"other-round": 2}, 0.5, {"head": 0.5}, validation, 1.25, 10, 20
    )


def full_state():
    model = GlobalModel(np.array([0.1, -2.0, 1e-300]), np.array([0.5], dtype=np.float32))
    best = BestModel(1, 0.25, GlobalModel(np.array([7.0, 8.0, 9.0]), np.array([0.75], dtype=np.float32)))
    return ServerState(
        model=model,
        moments={"first_moment": np.array([1.0, 2.0, 3.0]), "second_moment": np.array([4.0, 5.0, 6.0])},
        recent=(np.zeros(3), np.ones(3)),
        best=best,
        history=(summary(1, Evaluation(0.25, {"accuracy": 0.75})), summary(2)),
    )


def assert_same(left, right):
    def arrays(state):
        best = () if state.best is None else (state.best.model.weights, state.best.model.basis)
        moments = [state.moments[name] for name in sorted(state.moments)]
        return [state.model.weights, state.model.basis, *moments, *state.recent, *best]

    assert [(a.dtype, a.tobytes()) for a in arrays(left)] == [(a.dtype, a.tobytes()) for a in arrays(right)]
    assert sorted(left.moments) == sorted(right.moments)
    assert left.history == right.history
    assert (left.best is None) == (right.best is None)
    if left.best is not None:
        assert (left.best.round_number, left.best.loss) == (right.best.round_number, right.best.loss)


@pytest.mark.parametrize(
    "state", [full_state(), ServerState(GlobalModel(np.zeros(1), np.zeros(0, dtype=np.float32)), {})]
)
def test_what_is_read_is_what_was_saved(tmp_path, state):
    save_checkpoint(tmp_path, state, PLAN)
    assert_same(load_checkpoint(tmp_path, PLAN), state)


def test_the_round_number_is_the_number_of_finished_rounds(tmp_path):
    save_checkpoint(tmp_path, full_state(), PLAN)
    assert load_checkpoint(tmp_path, PLAN).round_number == 2


def test_arrays_that_are_views_are_saved_in_their_own_order(tmp_path):
    weights = np.arange(6.0)[::-2]
    save_checkpoint(tmp_path, ServerState(GlobalModel(weights, np.zeros(0, dtype=np.float32)), {}), PLAN)
    assert load_checkpoint(tmp_path, PLAN).model.weights.tolist() == [5.0, 3.0, 1.0]


def test_a_metric_without_a_value_survives(tmp_path):
    judged = Evaluation(0.25, {"auc": math.nan, "accuracy": 0.5})
    save_checkpoint(tmp_path, ServerState(full_state().model, {}, history=(summary(1, judged),)), PLAN)
    metrics = load_checkpoint(tmp_path, PLAN).history[0].validation.metrics
    assert math.isnan(metrics["auc"])
    assert metrics["accuracy"] == 0.5


def test_without_a_file_no_round_was_finished(tmp_path):
    assert load_checkpoint(tmp_path, PLAN) is None


def test_a_checkpoint_of_another_plan_is_refused(tmp_path):
    save_checkpoint(tmp_path, full_state(), PLAN)
    with pytest.raises(IntegrityError, match="belongs to plan abababababab, not to plan cdcdcdcdcdcd") as caught:
        load_checkpoint(tmp_path, "cd" * 32)
    assert "another folder" in caught.value.hint


def test_a_checkpoint_of_another_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(server.checkpoint, "FORMAT_VERSION", 2)
        save_checkpoint(tmp_path, full_state(), PLAN)
    with pytest.raises(IntegrityError, match="format version 2, not 1"):
        load_checkpoint(tmp_path, PLAN)


def assert_damaged(folder, content):
    (folder / CHECKPOINT_NAME).write_bytes(content)
    with pytest.raises(IntegrityError, match="is damaged") as caught:
        load_checkpoint(folder, PLAN)
    assert caught.value.hint


def test_every_altered_byte_is_noticed(tmp_path):
    save_checkpoint(tmp_path, full_state(), PLAN)
    whole = (tmp_path / CHECKPOINT_NAME).read_bytes()
    for position in range(len(whole)):
        assert_damaged(tmp_path, whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])


def test_every_shortened_or_lengthened_file_is_noticed(tmp_path):
    save_checkpoint(tmp_path, full_state(), PLAN)
    whole = (tmp_path / CHECKPOINT_NAME).read_bytes()
    for length in range(0, len(whole), 7):
        assert_damaged(tmp_path, whole[:length])
    assert_damaged(tmp_path, whole + b"\x00")


def forged(folder, change):
    """The folder's checkpoint with its arrays or document changed and the old seal kept."""
    whole = (folder / CHECKPOINT_NAME).read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    sealed, arrays = json.loads(header["__metadata__"]["cloister"]), load(whole)
    change(sealed, arrays)
    return save(arrays, {"cloister": canonical_bytes(sealed).decode()})


FORGERIES = {
    "another round added": lambda sealed, arrays: sealed["document"]["history"].append(
        sealed["document"]["history"][0]
    ),
    "an array swapped": lambda sealed, arrays: arrays.update({"weights": arrays["recent.1"]}),
    "an array missing": lambda sealed, arrays: arrays.pop("basis"),
    "an array added": lambda sealed, arrays: arrays.update({"more": arrays["basis"]}),
    "another type, same bytes": lambda sealed, arrays: arrays.update({"weights": arrays["weights"].view(np.int64)}),
    "another shape": lambda sealed, arrays: arrays.update({"weights": arrays["weights"].reshape(3, 1)}),
    "the document missing": lambda sealed, arrays: sealed.pop("document"),
    "the document a list": lambda sealed, arrays: sealed.update({"document": []}),
}


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES)
def test_a_change_under_the_old_seal_is_noticed(tmp_path, change):
    save_checkpoint(tmp_path, full_state(), PLAN)
    assert_damaged(tmp_path, forged(tmp_path, change))


def test_a_plain_safetensors_file_is_no_checkpoint(tmp_path):
    assert_damaged(tmp_path, save({"weights": np.zeros(2)}))


def test_a_half_written_file_beside_it_is_not_read(tmp_path):
    save_checkpoint(tmp_path, full_state(), PLAN)
    whole = (tmp_path / CHECKPOINT_NAME).read_bytes()
    (tmp_path / f".{CHECKPOINT_NAME}.abc").write_bytes(whole[: len(whole) // 2])
    assert_same(load_checkpoint(tmp_path, PLAN), full_state())
