import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from common.armour import armour, unarmour
from common.canonical import canonical_bytes
from common.enrolment import (
    check_fingerprint,
    federation_id,
    fingerprint,
    read_invitation,
    read_join_request,
    sign_invitation,
    sign_join_request,
    write_invitation,
    write_join_request,
)
from common.errors import ConfigError, IntegrityError, TransportError, UsageError
from common.identity import new_identity, public_name, sign
from common.node_key import prove_possession, public_pem
from tests.common.test_authority import certificate
from tests.enrolment_play import ADDRESS, NOW, make_join_request

IDENTITY, COORDINATOR = new_identity(), new_identity()
NODE = ec.generate_private_key(ec.SECP384R1())
REQUEST = make_join_request("north", IDENTITY, NODE)
INVITATION = sign_invitation(COORDINATOR, "sepsis", ADDRESS, certificate(), REQUEST, NOW)
NEUTRAL = "01" + "00" * 31
"""A key of order 1: its signature, made by nobody, fits every message."""
FORGED = NEUTRAL + "00" * 32


def test_a_federation_is_a_name_and_a_coordinator():
    first = federation_id("sepsis", "ab" * 32)
    assert first == hashlib.sha256(b'["cloister federation",1,"sepsis","' + b"ab" * 32 + b'"]').hexdigest()
    assert len({first, federation_id("stroke", "ab" * 32), federation_id("sepsis", "cd" * 32)}) == 3


def test_a_fingerprint_is_120_bits_of_a_hash_in_groups_of_four():
    hashed = hashlib.sha256(b'["cloister fingerprint",1,"' + b"ab" * 32 + b'"]').digest()
    groups = fingerprint("ab" * 32).split("-")
    assert [len(group) for group in groups] == [4] * 6
    assert base64.b32decode("".join(groups)) == hashed[:15]


def test_a_fingerprint_is_compared_as_people_type_it():
    public = public_name(IDENTITY)
    text = fingerprint(public)
    for typed in (text, text.lower(), text.replace("-", " "), text.replace("-", ""), f" {text}\n"):
        check_fingerprint(typed, public, "request", "site")
    for other in (text[::-1], fingerprint(public_name(COORDINATOR)), "AAAA-BBBB-CCCC-DDDD-EEEE-FFFF"):
        with pytest.raises(TransportError, match=f"{text}, which is not the one that was typed, {other}"):
            check_fingerprint(other.lower(), public, "request", "site")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("", "this one has 0"),
        ("-", "this one has 0"),
        ("ABCD", "this one has 1"),
        (lambda text: text[5:], "this one has 5"),
        (lambda text: text[:-1], "this one has 23 in all"),
        (lambda text: text + "A", "this one has 25 in all"),
        ("AAAA-BBBB-CCCC-DDDD-EEEE-FF0F", "digits from 2 to 7"),
        ("AAAA-BBBB-CCCC-DDDD-EEEE-FFÄF", "letters from A to Z"),
    ],
)
def test_what_is_no_fingerprint_was_mistyped_and_is_no_attack(typed, told):
    public = public_name(IDENTITY)
    with pytest.raises(UsageError, match=told) as caught:
        check_fingerprint(typed(fingerprint(public)) if callable(typed) else typed, public, "request", "site")
    assert caught.value.exit_code == 2


def test_documents_come_back_from_their_text():
    assert read_join_request(write_join_request(REQUEST)) == REQUEST
    assert read_invitation(write_invitation(INVITATION)) == INVITATION


def test_one_is_not_the_other():
    with pytest.raises(ConfigError, match="this is a join request, and an invitation is wanted"):
        read_invitation(write_join_request(REQUEST))
    with pytest.raises(IntegrityError, match=r"unknown field|lacks"):
        read_invitation(armour("invitation", unarmour("join request", write_join_request(REQUEST))))


def request_text(changes, identity=IDENTITY, node=NODE, purpose="join request", **forged):
    """A request with other fields, signed anew by whoever holds these two keys."""
    content = REQUEST.model_dump(mode="json", exclude={"signature", "node_signature"}) | changes
    content["node_signature"] = prove_possession(node, content).hex()
    content |= {key: value for key, value in forged.items() if key == "node_signature"}
    content["signature"] = sign(identity, purpose, content).hex()
    return armour("join request", canonical_bytes(content | forged))


def test_the_attackers_own_writing_is_right():
    assert read_join_request(request_text({})).site == "north"
    assert read_join_request(request_text({"site": "south"})).site == "south"


STRANGER, OTHER_NODE = new_identity(), ec.generate_private_key(ec.SECP384R1())


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (request_text({}, identity=STRANGER), "not signed by the identity"),
        (request_text({"identity": public_name(STRANGER)}), "not signed by the identity"),
        (request_text({}, purpose="invitation"), "not signed by the identity"),
        (request_text({}, signature="0" * 128), "not signed by the identity"),
        (request_text({}, node=OTHER_NODE), "not signed by the node key"),
        (request_text({"node_key": public_pem(OTHER_NODE)}), "not signed by the node key"),
        (request_text({"site": "south"}, node_signature=REQUEST.node_signature), "not signed by the node key"),
        (request_text({}, node_signature="00" * 70), "not signed by the node key"),
        (request_text({}, node_signature=""), "`node_signature`"),
        (request_text({}, signature=REQUEST.signature.upper()), "`signature`"),
        (request_text({"identity": NEUTRAL}, signature=FORGED), "not everybody can sign"),
        (request_text({"identity": public_name(IDENTITY).upper()}), "`identity`"),
        (request_text({"node_key": "junk"}), "`node_key`"),
        (request_text({"site": "coordinator"}), "what sites call the other side"),
        (request_text({"site": "COORDINATOR"}), "what sites call the other side"),
        (request_text({"site": "n\u043erth"}), "`site`"),
        (request_text({"site": "../north"}), "`site`"),
        (request_text({"site": "north\n"}), "`site`"),
        (request_text({"site": "x" * 65}), "`site`"),
        (request_text({"created": "2026-11-05T09:30:00"}), "`created`"),
        (request_text({"format_version": 2}), "`format_version`"),
        (request_text({"admin": True}), "unknown field"),
    ],
)
def test_a_request_that_is_not_all_the_holders_own_is_refused(text, rule):
    with pytest.raises(IntegrityError, match=rule) as caught:
        read_join_request(text)
    assert caught.value.message.startswith("the join request ")
    assert caught.value.message.isprintable()


def test_a_site_with_another_ones_node_key_cannot_ask():
    """It sees the public half in another's request, and cannot sign with it."""
    content = REQUEST.model_dump(mode="json", exclude={"signature"}) | {"identity": public_name(STRANGER)}
    text = canonical_bytes(content | {"signature": sign(STRANGER, "join request", content).hex()})
    with pytest.raises(IntegrityError, match="not signed by the node key"):
        read_join_request(armour("join request", text))


def test_a_bad_name_is_not_signed():
    with pytest.raises(ConfigError, match="cannot be made"):
        sign_join_request("coordinator", IDENTITY, NODE, NOW)


def invitation_text(changes, identity=COORDINATOR, **forged):
    content = INVITATION.model_dump(mode="json", exclude={"signature"}) | changes
    signature = sign(identity, "invitation", content).hex()
    return armour("invitation", canonical_bytes(content | {"signature": signature} | forged))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (invitation_text({}, identity=STRANGER), "not signed by the coordinator"),
        (invitation_text({"coordinator": public_name(STRANGER)}), "not signed by the coordinator"),
        (invitation_text({"coordinator": public_name(STRANGER)}, identity=STRANGER), "federation id"),
        (invitation_text({"federation_name": "stroke"}), "federation id"),
        (invitation_text({"federation": "0" * 64}), "federation id"),
        (invitation_text({"coordinator": NEUTRAL}, signature=FORGED), "not everybody can sign"),
        (invitation_text({"site_public": public_name(COORDINATOR)}), "one key for the site and for the coordinator"),
        (invitation_text({"address": "Study.example.org:9443"}), "`address`"),
        (invitation_text({"address": "0.0.0.0:9443"}), "`address`"),
        (invitation_text({"address": "user@study.example.org:9443"}), "`address`"),
        (invitation_text({"ca_certificate": certificate(extensions=())}), "may not issue any"),
        (invitation_text({"ca_certificate": certificate() + certificate()}), "one self-signed"),
        (invitation_text({"federation_name": "sеpsis"}), "`federation_name`"),  # noqa: RUF001 - a Cyrillic letter
        (invitation_text({"site": "coordinator"}), "`site`"),
        (invitation_text({"proxy": "192.0.2.7:1"}), "unknown field"),
    ],
)
def test_an_invitation_that_does_not_hold_together_is_refused(text, rule):
    with pytest.raises(IntegrityError, match=rule) as caught:
        read_invitation(text)
    assert caught.value.message.startswith("the invitation ")
    assert caught.value.message.isprintable()


@settings(max_examples=60)
@given(st.sampled_from(["request", "invitation"]), st.data())
def test_no_changed_byte_passes(which, data):
    label, read = ("join request", read_join_request) if which == "request" else ("invitation", read_invitation)
    text = write_join_request(REQUEST) if which == "request" else write_invitation(INVITATION)
    body = bytearray(unarmour(label, text))
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IntegrityError):
        read(armour(label, bytes(body)))


@settings(max_examples=30)
@given(st.data())
def test_no_shortened_text_passes(data):
    text = write_invitation(INVITATION).rstrip("\n")
    with pytest.raises(IntegrityError):
        read_invitation(text[: data.draw(st.integers(0, len(text) - 1))])


def test_texts_are_small_and_hold_no_secret():
    secret = IDENTITY.private_bytes_raw().hex()
    for text, label in ((write_join_request(REQUEST), "join request"), (write_invitation(INVITATION), "invitation")):
        assert len(text) < 2500
        assert secret not in json.dumps(unarmour(label, text).decode())
