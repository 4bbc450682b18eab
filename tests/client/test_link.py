"""A link opened from a real home: the hospital's settings say which way it goes and whom it trusts."""

import pytest

from client.config import NetworkConfig
from client.enrolment import read_pinned
from client.link import open_link
from common.errors import AccessError, ConfigError
from tests.evil_server import evil_server, proxy
from tests.federation_play import make_federation
from tests.fleet_play import Coordinator


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("homes")
    return make_federation(folder, folder, ("a",)).sites["a"]


@pytest.fixture
def opened(home, tmp_path):
    """A link opened from a real home, whose pinned address and authority are a server's."""

    def run(settings):
        with evil_server(tmp_path, Coordinator()) as server:
            pinned = read_pinned(home)
            place = {"address": server.address, "ca_certificate": server.authority}
            invitation = pinned.invitation.model_copy(update=place)
            link = open_link(home, pinned.model_copy(update={"invitation": invitation}), settings)
            link.connect()
            link.close()
            return server

    return run


def test_the_hospitals_proxy_is_the_only_way_out(opened):
    with proxy() as between:
        server = opened(NetworkConfig(proxy=between.address))
        assert set(between.paths) == {server.address}


def test_the_pinned_authority_is_trusted_and_no_other(home, tmp_path):
    with evil_server(tmp_path, Coordinator()) as server:
        pinned = read_pinned(home)
        invitation = pinned.invitation.model_copy(update={"address": server.address})
        link = open_link(home, pinned.model_copy(update={"invitation": invitation}), NetworkConfig())
        with pytest.raises(AccessError, match="pinned authority did not sign"):
            link.connect()
        link.close()
        assert not server.asked


def test_a_further_authority_is_trusted_where_the_hospital_names_one(home, tmp_path):
    with evil_server(tmp_path, Coordinator()) as server:
        pinned = read_pinned(home)
        invitation = pinned.invitation.model_copy(update={"address": server.address})
        further = NetworkConfig(extra_ca_file=str(tmp_path / "ca.pem"))
        link = open_link(home, pinned.model_copy(update={"invitation": invitation}), further)
        link.connect()
        link.close()


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_further_authority_that_cannot_be_read_is_one_sentence(home, tmp_path, content):
    path = tmp_path / "further.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        open_link(home, read_pinned(home), NetworkConfig(extra_ca_file=str(path)))
