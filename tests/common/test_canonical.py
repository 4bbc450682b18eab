import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.canonical import canonical_bytes, digest, file_digest, read_canonical


def test_keys_are_sorted_and_nothing_is_spaced() -> None:
    assert canonical_bytes({"b": [1, 2.5, None], "a": {"ε": True}}) == b'{"a":{"\\u03b5":true},"b":[1,2.5,null]}'


def test_a_digest_is_the_hash_of_these_bytes() -> None:
    assert digest([1]) == hashlib.sha256(b"[1]").hexdigest()


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()))
def test_the_order_of_insertion_does_not_count(table: dict[str, object]) -> None:
    assert digest(table) == digest(dict(reversed(table.items())))


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_equal_when_their_bytes_are(one: float, other: float) -> None:
    assert (repr(one) == repr(other)) == (canonical_bytes(one) == canonical_bytes(other))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{"a": float("-inf")}]])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_bytes(value)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object()])
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        canonical_bytes(value)


@given(st.recursive(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists))
def test_what_was_written_is_read_again(value: object) -> None:
    assert read_canonical(canonical_bytes(value)) == value


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[1] [2]", "is not JSON"),
        (b"[NaN]", "is not JSON"),
        (b"[1e999]", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        ('"é"'.encode(), "is not JSON"),
        (b"[1, 2]", "is not canonical"),
        (b"[1]\n", "is not canonical"),
        (b"[1e0]", "is not canonical"),
        (b'{"b":1,"a":2}', "is not canonical"),
        (b'{"a":1,"a":1}', "is not canonical"),
        (b'"\\u0061"', "is not canonical"),
    ],
)
def test_a_second_spelling_is_refused(data: bytes, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{rule}$"):
        read_canonical(data)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_file_is_hashed_whole_whatever_its_size(size: int, tmp_path: Path) -> None:
    content = bytes(index % 251 for index in range(1000)) * (size // 1000 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    assert file_digest(tmp_path / "file") == hashlib.sha256(content[:size]).hexdigest()
