"""The certificate authority that an invitation carries: is it one, one alone, and valid now?"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
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
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
        # One spelling: no second certificate, no private key and no text around it.
        if certificate.public_bytes(Encoding.PEM).decode("ascii") != pem:
            raise ValueError("more than one certificate")
        is_authority = _may_issue(certificate)
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.UnsupportedGeneralNameType):
        raise ValueError("must be one self-signed X.509 certificate in PEM") from None
    except (x509.InvalidVersion, x509.DuplicateExtension):
        raise ValueError("must be one self-signed X.509 certificate of version 3") from None
    if not is_authority:
        raise ValueError("must be the certificate of a certificate authority, and this one may not issue any")
    return pem


AuthorityPem = Annotated[str, AfterValidator(_checked)]
"""One self-signed CA certificate in the one PEM spelling."""


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca and usage.key_cert_sign
