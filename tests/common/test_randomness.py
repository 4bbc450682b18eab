import copy
import io
import os
import pickle

import numpy as np
import pytest
from scipy import stats

from common import randomness
from common.randomness import SecretSource, public_generator

# RFC 8439, appendix A.1, test vector 1: key, nonce and block counter all zero.
ZERO_KEY_STREAM = bytes.fromhex(
    "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
)


def words_of(source: SecretSource, count: int) -> list[int]:
    """The 52 bits behind each value."""
    return [int(value * 2**52 - 0.5) for value in source.uniform(count)]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Keys that the operating system 'draws' from now on: 0, 1, 2, ..."""
    drawn: list[bytes] = []

    def token_bytes(size: int) -> bytes:
        drawn.append(bytes([len(drawn)]) * size)
        return drawn[-1]

    monkeypatch.setattr(randomness.secrets, "token_bytes", token_bytes)
    return drawn


def test_a_public_stream_can_be_made_again() -> None:
    assert (
        public_generator(7, "a", 1).integers(0, 2**63, 5).tolist()
        == public_generator(7, "a", 1).integers(0, 2**63, 5).tolist()
    )


@pytest.mark.parametrize("other", [(8, "a", 1), (7, "b", 1), (7, "a", 2), (7, "a"), (7, "a", "1"), (7, "a1")])
def test_other_seeds_and_labels_give_other_streams(other: tuple[int | str, ...]) -> None:
    seed, *labels = other
    assert public_generator(int(seed), *labels).integers(0, 2**63) != public_generator(7, "a", 1).integers(0, 2**63)


def test_secret_values_are_the_high_52_bits_of_the_keystream(keys: list[bytes]) -> None:
    expected = [int.from_bytes(ZERO_KEY_STREAM[start : start + 8], "little") >> 12 for start in range(0, 64, 8)]
    source = SecretSource()
    assert words_of(source, 3) + words_of(source, 5) == expected
    assert keys == [bytes(32)]


def test_secret_values_are_uniform() -> None:
    values = SecretSource().uniform(50_000)
    assert values.min() > 0
    assert values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-6
    counts = np.bincount((values * 64).astype(int), minlength=64)
    assert stats.chisquare(counts).pvalue > 1e-6


def test_the_ends_are_never_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    source = SecretSource()
    monkeypatch.setattr(source, "_keystream", lambda size: b"\xff" * 8 + b"\x00" * 8)
    assert source.uniform(2).tolist() == [1 - 2.0**-53, 2.0**-53]


def test_two_sources_and_two_calls_differ() -> None:
    first, second = SecretSource(), SecretSource()
    draws = [first.uniform(4), first.uniform(4), second.uniform(4)]
    assert len({tuple(draw.tolist()) for draw in draws}) == 3


def test_no_values() -> None:
    assert SecretSource().uniform(0).shape == (0,)


def test_a_new_key_is_drawn_before_the_stream_of_one_ends(monkeypatch: pytest.MonkeyPatch, keys: list[bytes]) -> None:
    monkeypatch.setattr(randomness, "_BYTES_PER_KEY", 24)
    source = SecretSource()
    first = words_of(source, 2)
    assert len(keys) == 1
    second = words_of(source, 2)
    assert keys == [bytes(32), bytes([1]) * 32]
    assert first == [int.from_bytes(ZERO_KEY_STREAM[start : start + 8], "little") >> 12 for start in (0, 8)]
    assert not set(first) & set(second)


def test_one_key_ends_before_the_block_counter_does() -> None:
    assert randomness._BYTES_PER_KEY < 64 * 2**32


def test_a_forked_child_has_a_stream_of_its_own() -> None:
    source = SecretSource()
    source.uniform(3)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, source.uniform(4).tobytes())
        os._exit(0)
    os.waitpid(child, 0)
    of_child = np.frombuffer(os.read(reader, 32), dtype=np.float64)
    os.close(reader)
    os.close(writer)
    assert len(of_child) == 4
    assert not set(of_child.tolist()) & set(source.uniform(4).tolist())


def test_a_secret_source_shows_no_key_and_cannot_be_copied(keys: list[bytes]) -> None:
    source = SecretSource()
    assert repr(source) == "SecretSource(key hidden)"
    assert all(value != keys[0] for value in vars(source).values())
    with pytest.raises(TypeError):
        copy.deepcopy(source)
    with pytest.raises(TypeError):
        pickle.dump(source, io.BytesIO())
