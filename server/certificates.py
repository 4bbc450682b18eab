"""The coordinator's certificate authority, and what it issues: for the gateway, and for the SuperLink on loopback."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.address import parse_address
from common.errors import IntegrityError
from common.files import write_durably
from common.findings import Finding
from common.key_files import read_ec_key, write_ec_key
from server.home import CoordinatorHome

AUTHORITY_DAYS = 3652
"""Ten years: it outlives a study, because every hospital has to accept a new one by hand."""
CERTIFICATE_DAYS = 730
WARNING_DAYS = 30

# A hospital's clock may be behind; by more than this, and it hears so.
_CLOCK_SLACK = timedelta(hours=1)
_CURVE = ec.SECP256R1
_SIGNED_WITH = hashes.SHA256()
_LOOPBACK = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
    x509.IPAddress(ipaddress.IPv6Address("::1")),
)


def create_certificates(home: CoordinatorHome, federation_name: str, address: str, now: datetime) -> None:
    """Draw the keys of a new home, and issue its three certificates.

    Args:
        home: A home without keys.
        federation_name: What the authority is called.
        address: `HOST:PORT` at which hospitals meet the gateway.
        now: The clock, in UTC.

    Raises:
        ConfigError: When there is a key already, or the address is none.
    """
    parse_address(address)
    for path in (home.ca_key, home.server_key, home.superlink_key):
        write_ec_key(path, ec.generate_private_key(_CURVE()))
    key = read_ec_key(home.ca_key, _CURVE)
    _write(home.ca_certificate, _authority(key, federation_name, now))
    renew_certificates(home, address, now)


def renew_certificates(home: CoordinatorHome, address: str, now: datetime) -> None:
    """Issue the gateway's and the SuperLink's certificates anew: for another address, or before they end.

    Guarantees:
        Their keys stay, and so does the authority: no hospital has to do anything while the address is the same.

    Raises:
        ConfigError: When a key is missing or open to others.
        IntegrityError: When key and certificate of the authority do not belong together.
    """
    key = read_ec_key(home.ca_key, _CURVE)
    authority = _read(home.ca_certificate)
    if authority.public_key() != key.public_key():
        raise IntegrityError(
            f"{home.ca_certificate} is not the certificate of {home.ca_key}", hint="restore both from one backup"
        )
    names = {home.server_certificate: _names_of(address), home.superlink_certificate: _LOOPBACK}
    keys = {home.server_certificate: home.server_key, home.superlink_certificate: home.superlink_key}
    for path, alternatives in names.items():
        public = read_ec_key(keys[path], _CURVE).public_key()
        _write(path, _issued(key, authority, public, alternatives, now))


def certificate_findings(home: CoordinatorHome, address: str, now: datetime) -> tuple[Finding, ...]:
    """What is wrong with the certificates, or soon will be, one finding each.

    Raises:
        ConfigError, IntegrityError: When a key or certificate cannot be read.
    """
    authority = _read(home.ca_certificate)
    gateway, superlink = _read(home.server_certificate), _read(home.superlink_certificate)
    return (
        _time_finding("CA certificate", authority, now, "make a new home and enrol every site anew"),
        _time_finding("gateway certificate", gateway, now, "cloister-coordinator renew"),
        _time_finding("SuperLink certificate", superlink, now, "cloister-coordinator renew"),
        _name_finding(gateway, address),
    )


def _authority(key: ec.EllipticCurvePrivateKey, federation_name: str, now: datetime) -> x509.Certificate:
    name = _subject(federation_name)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    last = now + timedelta(days=AUTHORITY_DAYS)
    builder = _builder(name, name, key.public_key(), now, last).add_extension(identifier, critical=False)
    # Path length 0: what it issues may issue nothing.
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(_usage(authority=True), critical=True).sign(key, _SIGNED_WITH)


def _issued(
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    public: ec.EllipticCurvePublicKey,
    names: Sequence[x509.GeneralName],
    now: datetime,
) -> x509.Certificate:
    last = min(now + timedelta(days=CERTIFICATE_DAYS), authority.not_valid_after_utc)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.SubjectAlternativeName(names), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(authority=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (issuer, False),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
    )
    builder = _builder(_subject("Cloister coordinator"), authority.subject, public, now, last)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, _SIGNED_WITH)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, last: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _CLOCK_SLACK).not_valid_after(last)


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _names_of(address: str) -> tuple[x509.GeneralName, ...]:
    parsed = parse_address(address)
    return (x509.DNSName(parsed.host) if parsed.ip is None else x509.IPAddress(parsed.ip),)


def _write(path: Path, certificate: x509.Certificate) -> None:
    write_durably(path, certificate.public_bytes(Encoding.PEM))


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise IntegrityError(f"{path} is missing, or no certificate", hint="restore it from a backup") from None


def _time_finding(subject: str, certificate: x509.Certificate, now: datetime, mend: str) -> Finding:
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= now <= last:
        sentence = f"it is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d}, and now is {now:%Y-%m-%d}"
        return Finding("fail", subject, sentence, f"check the clock; if it is right: {mend}")
    if last - now < timedelta(days=WARNING_DAYS):
        return Finding("warn", subject, f"it ends on {last:%Y-%m-%d}", mend)
    return Finding("pass", subject, f"it is valid until {last:%Y-%m-%d}")


def _name_finding(gateway: x509.Certificate, address: str) -> Finding:
    subject = "gateway address"
    names = gateway.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if tuple(names) != _names_of(address):
        sentence = f"the gateway's certificate is for another host than {address}"
        return Finding("fail", subject, sentence, "cloister-coordinator renew, and invite the sites anew")
    return Finding("pass", subject, f"the gateway's certificate is for {address}")
