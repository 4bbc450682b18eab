"""Arrays and their document come back bit for bit, or not at all."""

import numpy as np
import pytest

from server.sealed_arrays import read_arrays, write_arrays

ARRAYS = {
    "a": np.arange(6, dtype=np.uint32).reshape(2, 3),
    "b": np.array([np.nan, -0.0]),
    "empty": np.zeros(0, np.uint8),
}
DOCUMENT = {"names": ["x", "y"], "number": 3}


@pytest.fixture
def content(tmp_path) -> bytes:
    write_arrays(tmp_path / "file", ARRAYS, DOCUMENT)
    return (tmp_path / "file").read_bytes()


def test_what_was_written_comes_back(content):
    arrays, document = read_arrays(content)
    assert document == DOCUMENT
    assert {name: (values.dtype, values.shape, values.tobytes()) for name, values in arrays.items()} == {
        name: (values.dtype, values.shape, values.tobytes()) for name, values in ARRAYS.items()
    }


def test_a_view_with_strides_is_written_in_its_own_order(tmp_path):
    spaced = np.arange(10)[::3]
    write_arrays(tmp_path / "file", {"spaced": spaced}, {})
    assert read_arrays((tmp_path / "file").read_bytes())[0]["spaced"].tolist() == [0, 3, 6, 9]


def test_any_changed_byte_and_any_cut_is_damage(content):
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1
        assert read_arrays(bytes(changed)) is None
    for length in (0, 4, 8, len(content) // 2, len(content) - 1):
        assert read_arrays(content[:length]) is None


def test_a_file_of_another_kind_is_damage():
    assert read_arrays(b"{}") is None
    assert read_arrays(bytes(64)) is None
