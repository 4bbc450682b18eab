import json
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from common.enrolment import federation_id, fingerprint, read_invitation, write_join_request
from common.errors import ConfigError, IntegrityError, TransportError
from common.identity import new_identity, public_name
from common.key_files import read_identity
from server.enrolment import enrol, enrolled, withdraw
from tests.enrolment_play import ADDRESS, NOW, make_coordinator, make_join_request


@pytest.fixture
def home(tmp_path):
    return make_coordinator(tmp_path)


def add(home, *args, **keys):
    request = make_join_request(*args, **keys)
    return request, enrol(home, write_join_request(request), NOW)


def names(home):
    return [site.name for site in enrolled(home)]


def test_a_site_is_let_in_with_name_and_keys(home):
    request, text = add(home, "north")
    (site,) = enrolled(home)
    assert (site.name, site.public, site.node_key) == ("north", request.identity, request.node_key)
    assert (site.request, site.enrolled) == (request, NOW)
    invitation = read_invitation(text)
    coordinator = public_name(read_identity(home.identity_key))
    assert (invitation.site, invitation.site_public) == ("north", request.identity)
    assert (invitation.address, invitation.coordinator) == (ADDRESS, coordinator)
    assert invitation.federation == federation_id("sepsis", coordinator)


def test_sites_come_by_name_and_nothing_else_lies_there(home):
    for name in ("west", "east", "north"):
        add(home, name)
    assert names(home) == ["east", "north", "west"]
    assert sorted(path.name for path in home.sites.iterdir()) == ["east.json", "north.json", "west.json"]
    assert home.site("east").stat().st_mode & 0o777 == 0o600


def test_the_same_request_again_gives_another_invitation_and_one_site(home):
    request, _ = add(home, "north")
    kept = home.site("north").read_bytes()
    home.config.write_text('name = "sepsis"\naddress = "192.0.2.7:443"\n')
    assert read_invitation(enrol(home, write_join_request(request), NOW)).address == "192.0.2.7:443"
    assert home.site("north").read_bytes() == kept


def test_a_request_from_somebody_else_is_found_by_the_fingerprint(home):
    request, other = make_join_request("north"), make_join_request("north")
    with pytest.raises(TransportError, match="not the one that was typed") as caught:
        enrol(home, write_join_request(other), NOW, expected_fingerprint=fingerprint(request.identity))
    assert caught.value.exit_code == 4
    assert names(home) == []
    enrol(home, write_join_request(request), NOW, expected_fingerprint=fingerprint(request.identity).lower())
    assert names(home) == ["north"]


def refused(home, match, *args, **keys):
    before = {path.name: path.read_bytes() for path in home.sites.iterdir()}
    with pytest.raises(ConfigError, match=match) as caught:
        add(home, *args, **keys)
    assert caught.value.hint
    assert {path.name: path.read_bytes() for path in home.sites.iterdir()} == before


def test_a_name_stands_for_one_identity_and_one_node_key(home):
    identity, node = new_identity(), ec.generate_private_key(ec.SECP384R1())
    add(home, "north", identity, node)
    refused(home, "the name north belongs to the key", "north")
    refused(home, "the name north belongs to the key", "north", identity=identity)
    refused(home, "the name north belongs to the key", "north", node_key=node)


def test_a_key_stands_for_one_name(home):
    identity, node = new_identity(), ec.generate_private_key(ec.SECP384R1())
    add(home, "north", identity, node)
    for keys in ({"identity": identity}, {"node_key": node}, {"identity": identity, "node_key": node}):
        refused(home, "a key of the request is enrolled as north already", "south", **keys)


@pytest.mark.parametrize("name", ["St-Anna-1", "st-anna-1", "St.Anna_1", "St-Anna-l"])
def test_names_that_look_or_sound_the_same_are_refused(home, name):
    add(home, "St-Anna-I")
    add(home, "St-Anna-2")
    if name != "St-Anna-1":
        add(home, "St-Anna-1")
        refused(home, "looks like St-Anna-1", name)
    else:
        add(home, name)


def test_a_site_with_the_coordinators_own_key_is_refused(home):
    refused(home, "one key for the site and for the coordinator", "north", identity=read_identity(home.identity_key))


@pytest.mark.parametrize("text", ["", "-----BEGIN CLOISTER JOIN REQUEST-----", "é", "x" * 70_000])
def test_a_malformed_request_lets_nobody_in(home, text):
    with pytest.raises(IntegrityError, match="the join request"):
        enrol(home, text, NOW)
    assert names(home) == []


def test_two_commands_at_once_let_one_key_in_under_one_name(home):
    identity = new_identity()
    outcomes = []

    def add_one(name):
        try:
            outcomes.append(add(home, name, identity)[0].site)
        except ConfigError as error:
            outcomes.append(error.exit_code)

    threads = [threading.Thread(target=add_one, args=(f"site-{number}",)) for number in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes))[:5] == ["3"] * 5
    assert names(home) == [name for name in outcomes if name != 3]


def test_a_withdrawn_site_leaves_name_and_keys_free(home):
    request, _ = add(home, "north")
    add(home, "south")
    assert withdraw(home, "north").request == request
    assert names(home) == ["south"]
    add(home, "north")
    assert names(home) == ["north", "south"]


@pytest.mark.parametrize(
    "name", ["north", "", "../coordinator", "..", "/etc/passwd", "south.json", "x" * 5000, "\x1b[2J"]
)
def test_nobody_else_can_be_withdrawn(home, name):
    add(home, "south")
    (home.path / "coordinator.json").write_text("{}")
    with pytest.raises(ConfigError, match="is enrolled") as caught:
        withdraw(home, name)
    assert caught.value.hint == "enrolled sites: south"
    assert caught.value.message.isprintable()
    assert names(home) == ["south"]
    assert (home.path / "coordinator.json").exists()


def test_a_file_of_another_coordinator_or_name_is_noticed(home, tmp_path):
    other = make_coordinator(tmp_path / "other")
    add(other, "north")
    home.site("north").write_bytes(other.site("north").read_bytes())
    with pytest.raises(IntegrityError, match="not written by this coordinator"):
        enrolled(home)
    home.site("north").unlink()
    add(home, "south")
    home.site("south").rename(home.site("north"))
    with pytest.raises(IntegrityError, match="not written by this coordinator"):
        enrolled(home)


def test_a_key_exchanged_on_disk_is_noticed(home):
    add(home, "north")
    kept = json.loads(home.site("north").read_text())
    kept["request"] = make_join_request("north").model_dump(mode="json")
    home.site("north").write_text(json.dumps(kept, sort_keys=True, separators=(",", ":")))
    with pytest.raises(IntegrityError, match="is not signed by the coordinator that enrolled it"):
        enrolled(home)


@pytest.mark.parametrize("part", ["identity_key", "ca_certificate", "config"])
def test_a_home_without_its_parts_lets_nobody_in(home, part):
    getattr(home, part).unlink()
    with pytest.raises(ConfigError):
        add(home, "north")
    assert list(home.sites.iterdir()) == []
