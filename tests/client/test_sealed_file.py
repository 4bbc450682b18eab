import hashlib
import os
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.sealed_file import read_sealed, write_sealed


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.dictionaries(st.text(), st.integers() | st.text()), payload=st.binary())
def test_what_is_written_comes_back(tmp_path, header, payload):
    path = tmp_path / "file"
    write_sealed(path, header, payload)
    body = path.read_bytes()[:-32]
    assert path.read_bytes()[-32:] == hashlib.sha256(body).digest()
    found = read_sealed(path)
    assert found is not None
    assert found[1] == payload
    assert found[0] + b"\n" + payload == body


def test_a_payload_may_be_left_out_and_may_hold_newlines(tmp_path):
    write_sealed(tmp_path / "file", {"a": 1})
    assert read_sealed(tmp_path / "file") == (b'{"a":1}', b"")
    write_sealed(tmp_path / "file", {"a": "x\ny"}, b"1\n2\n")
    assert read_sealed(tmp_path / "file") == (b'{"a":"x\\ny"}', b"1\n2\n")


def test_only_its_owner_may_read_it(tmp_path):
    write_sealed(tmp_path / "file", {})
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


@pytest.mark.parametrize("place", [0, 5, 9, -33, -32, -1])
def test_a_flipped_bit_is_damage(tmp_path, place):
    write_sealed(tmp_path / "file", {"a": 1}, b"payload")
    content = bytearray((tmp_path / "file").read_bytes())
    content[place] ^= 1
    (tmp_path / "file").write_bytes(content)
    assert read_sealed(tmp_path / "file") is None


@pytest.mark.parametrize("length", [0, 1, 31, 32, 40])
def test_a_cut_file_is_damage(tmp_path, length):
    write_sealed(tmp_path / "file", {"a": 1}, b"payload")
    os.truncate(tmp_path / "file", length)
    assert read_sealed(tmp_path / "file") is None
