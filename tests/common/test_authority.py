import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from pydantic import TypeAdapter, ValidationError

from common.authority import AuthorityPem, check_authority_time
from common.errors import IntegrityError

NOW = datetime(2026, 11, 5, 9, 30, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
CONSTRAINTS = x509.BasicConstraints(ca=True, path_length=0)


def usage(*, cert_sign=True):
    others = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"], False
    )
    return x509.KeyUsage(digital_signature=True, key_cert_sign=cert_sign, crl_sign=False, decipher_only=False, **others)


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


USAGE = usage()


def certificate(key=KEY, signer=None, issuer="sepsis", extensions=(CONSTRAINTS, USAGE), days=10):
    builder = x509.CertificateBuilder().subject_name(name("sepsis")).issuer_name(name(issuer))
    builder = builder.public_key(key.public_key()).serial_number(7)
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=days))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    signer = signer or key
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer, algorithm).public_bytes(serialization.Encoding.PEM).decode()


GOOD = certificate()
ADAPTER = TypeAdapter(AuthorityPem)


@pytest.mark.parametrize(
    "pem",
    [
        GOOD,
        certificate(rsa.generate_private_key(65537, 2048)),
        certificate(ed25519.Ed25519PrivateKey.generate()),
        certificate(extensions=(x509.BasicConstraints(ca=True, path_length=None), usage())),
    ],
)
def test_an_authority_passes_as_it_is(pem):
    assert ADAPTER.validate_python(pem) == pem


@pytest.mark.parametrize(
    "extensions",
    [
        (),
        (usage(),),
        (CONSTRAINTS,),
        (CONSTRAINTS, usage(cert_sign=False)),
        (x509.BasicConstraints(ca=False, path_length=None), usage()),
        (x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),),
    ],
)
def test_a_certificate_that_may_not_issue_is_no_authority(extensions):
    with pytest.raises(ValidationError, match="may not issue any"):
        ADAPTER.validate_python(certificate(extensions=extensions))


OTHER = ec.generate_private_key(ec.SECP256R1())
SECRET = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "junk",
        GOOD[:-30],
        GOOD + GOOD,
        GOOD + certificate(OTHER),
        GOOD + SECRET,
        SECRET,
        "a word\n" + GOOD,
        GOOD + "\n",
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("B", "Б", 1),
        GOOD[:100] + ("A" if GOOD[100] != "A" else "B") + GOOD[101:],
        certificate(signer=OTHER),
        certificate(issuer="another"),
        certificate(rsa.generate_private_key(65537, 1024)),  # noqa: S505 - the point of it
        certificate(ec.generate_private_key(ec.SECP192R1())),
    ],
)
def test_what_is_no_single_sound_self_signed_certificate_is_refused(pem):
    with pytest.raises(ValidationError, match="must be one self-signed"):
        ADAPTER.validate_python(pem)


@pytest.mark.parametrize(("days", "good"), [(-0.1, False), (0, True), (10, True), (10.1, False)])
def test_it_is_valid_from_its_first_to_its_last_moment(days, good):
    now = NOW + timedelta(days=days)
    if good:
        check_authority_time(GOOD, now)
        return
    with pytest.raises(IntegrityError, match="valid from 2026-11-05 to 2026-11-15, and now is") as caught:
        check_authority_time(GOOD, now)
    assert "clock" in caught.value.hint
