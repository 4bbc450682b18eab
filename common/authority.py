"""The certificate authority that an invitation carries: is it one, one alone, and valid now?"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import AfterValidator

from common.errors import IntegrityError


def check_authority_time(pem: str, now: datetime) -> None:
    """Refuse an authority that is not valid yet, or no longer.

    Args:
        pem: An `AuthorityPem`.
        now: The site's clock, with its time zone.

    Raises:
        IntegrityError: With both moments, since a wrong clock looks the same.
    """
    certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= now <= last:
        raise IntegrityError(
            f"the coordinator's CA certificate is valid from {first:%Y-%m-%d} to {last:%Y-%m-%d}, "
            f"and now is {now:%Y-%m-%d}",
            hint="check this machine's clock; if it is right, ask the coordinator for a new invitation",
        )


def _checked(pem: str) -> str:
    certificate = _load(pem)
    if certificate is None:
        raise ValueError("must be one self-signed X.509 certificate in PEM, with a key of today's strength")
    if not _may_issue(certificate):
        raise ValueError("must be the certificate of a certificate authority, and this one may not issue any")
    return pem


AuthorityPem = Annotated[str, AfterValidator(_checked)]
"""One self-signed CA certificate in the one PEM spelling."""


def _load(pem: str) -> x509.Certificate | None:
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
        certificate.verify_directly_issued_by(certificate)
        is_strong = _is_strong(certificate)
    except _MALFORMED:
        return None
    # One spelling: no second certificate, no private key and no text around it.
    is_alone = certificate.public_bytes(Encoding.PEM).decode("ascii") == pem
    return certificate if is_alone and is_strong else None


def _is_strong(certificate: x509.Certificate) -> bool:
    """At least 112 bits: whoever computes the authority's key can play the gateway."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= 2048
    return isinstance(key, ed25519.Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= 256
    )


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, *_MALFORMED):
        return False
    return constraints.ca and usage.key_cert_sign


_MALFORMED = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
    x509.DuplicateExtension,
)
