import json
import stat
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from client import enrolment
from client.enrolment import accept, check_invitation, make_request, read_pinned
from client.keys import node_key, site_identity
from common.enrolment import (
    fingerprint,
    read_invitation,
    read_join_request,
    sign_invitation,
    write_invitation,
    write_join_request,
)
from common.errors import ConfigError, IntegrityError, RollbackError, TransportError, TryAgainError, UsageError
from common.identity import public_name
from common.key_files import read_identity
from common.node_key import public_pem
from server.certificates import create_certificates
from server.enrolment import enrol
from server.home import CoordinatorHome
from tests.enrolment_play import ADDRESS, NOW, Name, make_coordinator, make_join_request, make_site

LATER = NOW + timedelta(days=1)


@pytest.fixture
def coordinator(tmp_path):
    return make_coordinator(tmp_path)


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path)


@pytest.fixture
def invitation(site, coordinator):
    return enrol(coordinator, make_request(site, Name("north"), NOW), NOW)


def of(home):
    return public_name(read_identity(home.identity_key))


def files(home):
    return {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}


def test_a_request_names_the_site_and_both_of_its_keys(site):
    request = read_join_request(make_request(site, Name("north"), NOW))
    assert (request.site, request.created) == ("north", NOW)
    assert request.identity == public_name(site_identity(site))
    assert request.node_key == public_pem(node_key(site))


def test_asked_again_the_same_text_comes_out(site):
    assert make_request(site, Name("north"), NOW) == make_request(site, Name("north"), LATER)


def test_a_site_may_change_its_name_until_it_is_enrolled(site, coordinator):
    make_request(site, Name("nort"), NOW)
    text = make_request(site, Name("north"), NOW)
    accept(site, enrol(coordinator, text, NOW), None, NOW)
    with pytest.raises(ConfigError, match="enrolled already, and not as 'south'"):
        make_request(site, Name("south"), NOW)
    assert make_request(site, Name("north"), LATER) == text


@pytest.mark.parametrize("name", ["coordinator", "", "a b", "../up", "nörth", "n\u043erth", "x" * 65, "n\n"])
def test_a_name_that_is_none_of_a_site_is_one_sentence_and_nothing_is_written(site, name):
    before = files(site)
    with pytest.raises(ConfigError, match=r"the join request cannot be made: it has a field `site` that does not fit"):
        make_request(site, Name(name), NOW)
    assert files(site) == before


def test_keys_open_to_others_are_not_used(site):
    site.node_key.chmod(0o644)
    with pytest.raises(ConfigError, match="mode 0644") as caught:
        make_request(site, Name("north"), NOW)
    assert (caught.value.exit_code, caught.value.hint) == (3, f"chmod 600 {site.node_key}")


def test_accepting_pins_the_coordinator(site, coordinator, invitation):
    pinned = accept(site, invitation, fingerprint(of(coordinator)), NOW)
    assert pinned == read_pinned(site)
    assert pinned.invitation == read_invitation(invitation)
    assert (pinned.invitation.coordinator, pinned.invitation.address) == (of(coordinator), ADDRESS)
    assert pinned.invitation.ca_certificate == coordinator.ca_certificate.read_text()
    assert stat.S_IMODE(site.coordinator.stat().st_mode) == 0o600


def test_looking_at_an_invitation_writes_nothing(site, invitation):
    before = files(site)
    assert check_invitation(site, invitation, NOW) == read_invitation(invitation)
    assert files(site) == before


@pytest.mark.parametrize("expected", ["AAAA-BBBB-CCCC-DDDD-EEEE-FFFF", "the site's own"])
def test_another_fingerprint_pins_nothing(site, coordinator, invitation, expected):
    typed = fingerprint(of(site)) if expected == "the site's own" else expected
    with pytest.raises(TransportError, match="not the one that was typed") as caught:
        accept(site, invitation, typed, NOW)
    assert caught.value.exit_code == 4
    assert {typed, fingerprint(of(coordinator))} <= set(caught.value.message.replace(",", "").split())
    assert not site.coordinator.exists()


@pytest.mark.parametrize("typed", ["", "ABCD", "shortened"])
def test_a_fingerprint_that_is_none_pins_nothing(site, coordinator, invitation, typed):
    with pytest.raises(UsageError, match="six groups of four") as caught:
        accept(site, invitation, fingerprint(of(coordinator))[:-5] if typed == "shortened" else typed, NOW)
    assert caught.value.exit_code == 2
    assert not site.coordinator.exists()


def test_a_coordinator_in_the_middle_is_found_by_the_fingerprint(site, coordinator, tmp_path):
    """Whoever carries the files enrols the site with a coordinator of his own, of the same name and address."""
    middle = make_coordinator(tmp_path / "middle")
    forged = enrol(middle, make_request(site, Name("north"), NOW), NOW)
    assert check_invitation(site, forged, NOW).federation_name == "sepsis"
    with pytest.raises(TransportError):
        accept(site, forged, fingerprint(of(coordinator)), NOW)


def test_an_invitation_for_somebody_else_is_refused(site, coordinator, invitation, tmp_path):
    other = make_site(tmp_path, "south")
    theirs = enrol(coordinator, make_request(other, Name("south"), NOW), NOW)
    with pytest.raises(ConfigError, match="is for the site south, and this is north") as caught:
        accept(site, theirs, None, NOW)
    assert caught.value.exit_code == 3
    assert not site.coordinator.exists()


def test_an_invitation_for_another_key_is_refused(site, coordinator, invitation, tmp_path):
    """As after a new `init` under the old name: nothing was damaged or edited."""
    other = make_site(tmp_path / "anew", "north")
    make_request(other, Name("north"), NOW)
    with pytest.raises(ConfigError, match=f"is for the key {fingerprint(of(site))}"):
        accept(other, invitation, None, NOW)
    assert not other.coordinator.exists()


def test_an_invitation_under_another_name_is_refused(site, coordinator):
    make_request(site, Name("north"), NOW)
    renamed = make_join_request("south", site_identity(site), node_key(site))
    with pytest.raises(ConfigError, match="is for the site south, and this is north"):
        accept(site, enrol(coordinator, write_join_request(renamed), NOW), None, NOW)


def test_who_never_asked_accepts_nothing(site, coordinator):
    request = make_join_request("north", site_identity(site), node_key(site))
    with pytest.raises(ConfigError, match="has not asked"):
        accept(site, enrol(coordinator, write_join_request(request), NOW), None, NOW)


@pytest.mark.parametrize("days", [-1, 3653])
def test_a_ca_that_is_not_valid_now_is_refused(site, invitation, days):
    with pytest.raises(IntegrityError, match="CA certificate is valid from 2026-11-05 to 2036-11-04") as caught:
        accept(site, invitation, None, NOW + timedelta(days=days))
    assert "clock" in caught.value.hint
    assert not site.coordinator.exists()


def test_a_second_coordinator_is_refused(site, invitation, tmp_path):
    pinned = accept(site, invitation, None, NOW)
    second = make_coordinator(tmp_path / "second")
    with pytest.raises(ConfigError, match="this site belongs to sepsis"):
        accept(site, enrol(second, make_request(site, Name("north")), LATER), fingerprint(of(second)), LATER)
    assert read_pinned(site) == pinned


def test_a_second_federation_of_the_same_coordinator_is_refused(site, coordinator, invitation):
    accept(site, invitation, None, NOW)
    request = read_join_request(make_request(site, Name("north")))
    authority = coordinator.ca_certificate.read_text()
    other = sign_invitation(read_identity(coordinator.identity_key), "stroke", ADDRESS, authority, request, LATER)
    with pytest.raises(ConfigError, match="this site belongs to sepsis"):
        accept(site, write_invitation(other), None, LATER)


def test_the_same_coordinator_may_move_but_not_back(site, coordinator, invitation):
    accept(site, invitation, None, NOW)
    coordinator.config.write_text('name = "sepsis"\naddress = "192.0.2.7:443"\n')
    moved = enrol(coordinator, make_request(site, Name("north")), LATER)
    assert accept(site, moved, None, LATER).invitation.address == "192.0.2.7:443"
    with pytest.raises(RollbackError, match="of 2026-11-06 09:30 was accepted before"):
        accept(site, invitation, None, LATER)
    assert read_pinned(site).invitation.address == "192.0.2.7:443"


def test_accepting_twice_changes_nothing(site, invitation):
    first = accept(site, invitation, None, NOW)
    before = files(site)
    assert accept(site, invitation, None, LATER) == first
    assert files(site) == before


def test_of_two_commands_at_once_one_pins(site, invitation, monkeypatch):
    signed = enrolment.sign_document

    def sign_late(*args):
        site.coordinator.write_bytes(b"what the other command wrote")
        return signed(*args)

    monkeypatch.setattr(enrolment, "sign_document", sign_late)
    with pytest.raises(TryAgainError, match="another command"):
        accept(site, invitation, None, NOW)
    assert site.coordinator.read_bytes() == b"what the other command wrote"


def test_without_an_accepted_invitation_there_is_no_coordinator(site):
    with pytest.raises(ConfigError, match="accepted no invitation"):
        read_pinned(site)


def test_a_coordinator_exchanged_on_disk_is_noticed(site, coordinator, invitation, tmp_path):
    accept(site, invitation, None, NOW)
    middle = make_coordinator(tmp_path / "middle")
    forged = read_invitation(enrol(middle, make_request(site, Name("north")), NOW))
    kept = json.loads(site.coordinator.read_text())
    kept["invitation"] = forged.model_dump(mode="json")
    site.coordinator.write_text(json.dumps(kept, sort_keys=True, separators=(",", ":")))
    with pytest.raises(IntegrityError, match="is not signed by the site that accepted it"):
        read_pinned(site)


def test_the_pinned_file_of_another_site_is_noticed(site, coordinator, invitation, tmp_path):
    accept(site, invitation, None, NOW)
    other = make_site(tmp_path, "south")
    accept(other, enrol(coordinator, make_request(other, Name("south"), NOW), NOW), None, NOW)
    site.coordinator.write_bytes(other.coordinator.read_bytes())
    with pytest.raises(IntegrityError, match="accepted by another site"):
        read_pinned(site)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 70_000])
def test_a_damaged_pinned_file_is_one_sentence(site, invitation, content):
    accept(site, invitation, None, NOW)
    site.coordinator.write_bytes(content)
    with pytest.raises(IntegrityError, match="the pinned coordinator") as caught:
        read_pinned(site)
    assert "\n" not in caught.value.message


def test_a_certificate_of_the_gateway_is_no_ca(site, coordinator):
    request = read_join_request(make_request(site, Name("north"), NOW))
    gateway = coordinator.server_certificate.read_text()
    with pytest.raises(ConfigError, match="must be one self-signed"):
        sign_invitation(read_identity(coordinator.identity_key), "sepsis", ADDRESS, gateway, request, NOW)


def test_node_keys_are_of_one_site_alone(site, coordinator, tmp_path):
    """The oracle of what a second home gets: nothing of the first."""
    again = CoordinatorHome(tmp_path / "again")
    again.create(lambda draft: create_certificates(draft, "sepsis", ADDRESS, NOW))
    assert again.ca_certificate.read_bytes() != coordinator.ca_certificate.read_bytes()
    assert isinstance(node_key(site).curve, ec.SECP384R1)
