import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import server.sequences
from common.envelope import LARGEST_STEP
from common.errors import IntegrityError
from server.sequences import BLOCK, LARGEST_CLAIM, Place, Sequences

FEDERATION = "fe" * 32
NORTH, SOUTH = "a" * 64, "b" * 64
NAME = "sequences.json"


@pytest.fixture
def sequences(tmp_path):
    return Sequences(tmp_path / NAME, FEDERATION)


def reopened(folder):
    return Sequences(folder / NAME, FEDERATION)


def test_numbers_begin_at_one_and_grow_for_each_site(sequences):
    assert sequences.take([NORTH]) == {NORTH: Place(1, 0)}
    assert sequences.take([NORTH, SOUTH]) == {NORTH: Place(2, 0), SOUTH: Place(1, 0)}
    assert sequences.take([]) == {}


def test_a_block_is_on_disk_before_its_first_number_is_used(sequences, tmp_path):
    assert not (tmp_path / NAME).exists()
    for number in range(1, BLOCK + 2):
        assert sequences.take([NORTH])[NORTH].sequence == number
        on_disk = json.loads((tmp_path / NAME).read_bytes())["sites"][NORTH]["reserved"]
        assert on_disk == (BLOCK if number <= BLOCK else 2 * BLOCK)
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_a_restart_uses_no_number_twice_and_skips_less_than_a_block(sequences, tmp_path):
    sequences.take([NORTH])
    assert reopened(tmp_path).take([NORTH, SOUTH]) == {NORTH: Place(BLOCK + 1, 0), SOUTH: Place(1, 0)}


def test_a_full_disk_uses_no_number(sequences, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(server.sequences, "write_durably", full)
        with pytest.raises(OSError, match="No space left"):
            sequences.take([NORTH])
    assert sequences.take([NORTH])[NORTH].sequence == 1
    assert reopened(tmp_path).take([NORTH])[NORTH].sequence == BLOCK + 1


def test_a_second_process_takes_other_numbers_until_one_is_refused(sequences, tmp_path):
    first = [sequences.take([NORTH])[NORTH].sequence]
    second = reopened(tmp_path)
    others = [second.take([NORTH])[NORTH].sequence for _ in range(3)]
    first += [sequences.take([NORTH])[NORTH].sequence for _ in range(BLOCK - 1)]
    assert not set(first) & set(others)
    with pytest.raises(IntegrityError, match="was changed by somebody else"):
        sequences.take([NORTH])


# --- what was answered -----------------------------------------------------------------------------------------------


def test_the_highest_answer_is_kept_over_restarts(sequences, tmp_path):
    sequences.take([NORTH])
    assert not sequences.learn(NORTH, 1)
    sequences.save()
    assert reopened(tmp_path).take([NORTH])[NORTH].acknowledged == 1


def test_what_is_acknowledged_is_on_disk_before_it_is_said_and_never_shrinks(sequences, tmp_path):
    for _ in range(5):
        sequences.take([NORTH])
    for answered, expected in ((3, 3), (1, 3), (4, 4), (0, 4)):
        sequences.learn(NORTH, answered)
        assert sequences.take([NORTH])[NORTH].acknowledged == expected
        assert json.loads((tmp_path / NAME).read_bytes())["sites"][NORTH]["acknowledged"] == expected


def test_nothing_is_written_where_nothing_changed(sequences, monkeypatch):
    sequences.take([NORTH])
    monkeypatch.setattr(server.sequences, "write_durably", None)
    sequences.take([NORTH])
    sequences.save()


def test_a_lost_file_goes_on_where_the_site_says_it_is(sequences, tmp_path):
    for _ in range(3 * BLOCK):
        sequences.take([NORTH])
    (tmp_path / NAME).unlink()
    anew = reopened(tmp_path)
    assert anew.take([NORTH])[NORTH].sequence == 1
    assert anew.learn(NORTH, 3 * BLOCK)
    assert anew.take([NORTH])[NORTH] == Place(3 * BLOCK + 1, 3 * BLOCK)


def test_an_older_copy_goes_on_where_the_site_says_it_is_within_a_block_too(sequences, tmp_path):
    sequences.take([NORTH])
    copy = (tmp_path / NAME).read_bytes()
    later = reopened(tmp_path)
    assert [later.take([NORTH])[NORTH].sequence for _ in range(20)][-1] == BLOCK + 20
    (tmp_path / NAME).write_bytes(copy)
    older = reopened(tmp_path)
    assert older.take([NORTH])[NORTH].sequence == BLOCK + 1
    assert older.learn(NORTH, BLOCK + 20)
    assert older.take([NORTH])[NORTH] == Place(BLOCK + 21, BLOCK + 20)
    assert not older.learn(NORTH, BLOCK + 20)


def test_a_lie_costs_nobody_else_and_cannot_use_the_numbers_up(sequences):
    assert not sequences.learn(NORTH, LARGEST_CLAIM + 1)
    assert sequences.take([NORTH]) == {NORTH: Place(1, 0)}
    assert sequences.learn(NORTH, LARGEST_CLAIM)
    assert sequences.take([NORTH, SOUTH]) == {NORTH: Place(LARGEST_CLAIM + 1, LARGEST_CLAIM), SOUTH: Place(1, 0)}


def test_to_a_silent_site_numbers_stay_within_what_it_accepts_until_it_answers(sequences, tmp_path):
    """Whichever of so many orders the site has seen, it takes the next one."""
    assert sequences.learn(NORTH, 5)
    sequences._used[NORTH] = 5 + LARGEST_STEP - 1
    for _ in range(2):
        for _ in range(2):
            assert sequences.take([NORTH])[NORTH] == Place(5 + LARGEST_STEP, 5)
        sequences = reopened(tmp_path)
    assert not sequences.learn(NORTH, 5 + LARGEST_STEP)
    assert sequences.take([NORTH])[NORTH] == Place(6 + LARGEST_STEP, 5 + LARGEST_STEP)


# --- damage ----------------------------------------------------------------------------------------------------------

GOOD = {"format_version": 1, "federation": FEDERATION, "sites": {NORTH: {"reserved": 64, "acknowledged": 3}}}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "is damaged"),
        (json.dumps(GOOD).encode()[:-1], "is damaged"),
        (json.dumps(GOOD | {"format_version": 2}).encode(), "is damaged"),
        (json.dumps(GOOD | {"note": ""}).encode(), "is damaged"),
        (json.dumps(GOOD | {"sites": {NORTH: {"reserved": 64.5, "acknowledged": 3}}}).encode(), "is damaged"),
        (json.dumps(GOOD | {"sites": {NORTH: {"reserved": -1, "acknowledged": -1}}}).encode(), "is damaged"),
        (json.dumps(GOOD | {"sites": {NORTH: {"reserved": 64, "acknowledged": 65}}}).encode(), "is damaged"),
        (json.dumps(GOOD | {"federation": "0f" * 32}).encode(), "belongs to another federation"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_left_alone(tmp_path, content, rule):
    (tmp_path / NAME).write_bytes(json.dumps(GOOD).encode())
    assert reopened(tmp_path).take([NORTH]) == {NORTH: Place(65, 3)}
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(IntegrityError, match=rule) as error:
        reopened(tmp_path)
    assert "sites say how far they are" in error.value.hint
    assert (tmp_path / NAME).read_bytes() == content


# --- any history -----------------------------------------------------------------------------------------------------

steps = st.lists(st.sampled_from(["take", "take", "take", "save", "restart"]) | st.integers(0, 400), max_size=30)


@settings(max_examples=40)
@given(steps)
def test_over_any_history_numbers_grow_and_so_does_what_is_acknowledged(tmp_path_factory, steps):
    """Restarts forget what was learnt and not yet saved, and nothing that was ever said."""
    folder = tmp_path_factory.mktemp("sequences")
    sequences, taken, claimed = reopened(folder), [Place(0, 0)], 0
    for step in steps:
        match step:
            case "take":
                taken.append(sequences.take([NORTH])[NORTH])
                assert taken[-1].acknowledged <= claimed
            case "save":
                sequences.save()
            case "restart":
                sequences = reopened(folder)
            case _:
                sequences.learn(NORTH, step)
                claimed = max(claimed, step)
    for before, after in pairwise(taken):
        assert before.sequence < after.sequence > after.acknowledged >= before.acknowledged
