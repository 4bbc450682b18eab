import stat

import pytest

from client.keys import load_or_create_identity
from common.errors import IntegrityError
from common.identity import public_name


def test_an_identity_is_drawn_once_and_kept(tmp_path):
    first = load_or_create_identity(tmp_path)
    assert public_name(load_or_create_identity(tmp_path)) == public_name(first)
    assert (tmp_path / "identity.key").read_bytes() == first.private_bytes_raw()


def test_each_folder_has_its_own(tmp_path):
    (tmp_path / "other").mkdir()
    assert public_name(load_or_create_identity(tmp_path)) != public_name(load_or_create_identity(tmp_path / "other"))


def test_only_its_owner_may_read_it(tmp_path):
    load_or_create_identity(tmp_path)
    assert stat.S_IMODE((tmp_path / "identity.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("length", [0, 31, 33])
def test_what_is_no_key_is_refused_and_never_replaced(tmp_path, length):
    (tmp_path / "identity.key").write_bytes(bytes(length))
    (tmp_path / "identity.key").chmod(0o600)
    with pytest.raises(IntegrityError, match=f"has {length} bytes instead of 32") as caught:
        load_or_create_identity(tmp_path)
    assert "backup" in caught.value.hint
    assert (tmp_path / "identity.key").read_bytes() == bytes(length)
