import stat

import pytest

from client.home import SiteHome
from client.keys import create_keys, load_or_create_identity, node_key, site_identity
from common.errors import ConfigError, IntegrityError
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


def test_a_key_open_to_others_is_refused(tmp_path):
    load_or_create_identity(tmp_path)
    (tmp_path / "identity.key").chmod(0o644)
    with pytest.raises(ConfigError, match="mode 0644") as caught:
        load_or_create_identity(tmp_path)
    assert (caught.value.exit_code, caught.value.hint) == (3, f"chmod 600 {tmp_path / 'identity.key'}")


@pytest.fixture
def home(tmp_path):
    home = SiteHome(tmp_path / "site")
    home.create(create_keys)
    return home


def test_a_site_has_an_identity_and_a_node_key_of_its_own(home, tmp_path):
    other = SiteHome(tmp_path / "other")
    other.create(create_keys)
    assert public_name(site_identity(home)) != public_name(site_identity(other))
    assert node_key(home).private_numbers() != node_key(other).private_numbers()
    assert {path.stat().st_mode & 0o777 for path in home.keys.iterdir()} == {0o600}


def test_flower_reads_the_node_key_and_finds_it_fit(home):
    flower = pytest.importorskip("flwr.supercore.primitives.asymmetric")
    key = flower.bytes_to_private_key(home.node_key.read_bytes())
    assert key.private_numbers() == node_key(home).private_numbers()
    assert isinstance(key.curve, type(flower.generate_key_pairs()[0].curve))
    assert flower.uses_nist_ec_curve(key.public_key())
    assert home.node_key.read_bytes() == flower.private_key_to_bytes(key)


def test_keys_are_never_drawn_over_others(home):
    before = home.identity_key.read_bytes(), home.node_key.read_bytes()
    with pytest.raises(ConfigError, match="never replaced"):
        create_keys(home)
    assert (home.identity_key.read_bytes(), home.node_key.read_bytes()) == before
