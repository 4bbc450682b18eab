import ssl
import warnings
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from pydantic import TypeAdapter

from common.authority import AuthorityPem, check_authority_time
from common.errors import ConfigError, IntegrityError
from server.certificates import certificate_findings, create_certificates, renew_certificates
from server.home import CoordinatorHome
from tests.enrolment_play import ADDRESS, NOW, make_coordinator

TODAY = datetime.now(UTC).replace(microsecond=0)


def make(folder, address=ADDRESS, now=TODAY):
    home = CoordinatorHome(folder / "home")
    home.create(lambda draft: create_certificates(draft, "sepsis", address, now))
    return home


def shake_hands(home, certificate, key, host, authority=None):
    """A TLS handshake in memory, with every check that OpenSSL can make."""
    client = ssl.create_default_context(cafile=str(authority or home.ca_certificate))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        ends = [end for end in ends if not done(end)]


def done(end):
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("study.example.org:9443", "study.example.org"),
        ("192.0.2.7:9443", "192.0.2.7"),
        ("[2001:db8::7]:9443", "2001:db8::7"),
        (".".join(["x" * 60] * 4) + ":9443", ".".join(["x" * 60] * 4)),
    ],
)
def test_a_site_that_trusts_the_ca_meets_the_gateway_at_its_address_and_nowhere_else(tmp_path, address, host):
    home = make(tmp_path, address)
    shake_hands(home, home.server_certificate, home.server_key, host)
    for other in ("localhost", "other.example.org", "192.0.2.8"):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(home, home.server_certificate, home.server_key, other)


def test_the_superlink_is_met_on_loopback_only(tmp_path):
    home = make(tmp_path)
    for host in ("127.0.0.1", "localhost", "::1"):
        shake_hands(home, home.superlink_certificate, home.superlink_key, host)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(home, home.superlink_certificate, home.superlink_key, "study.example.org")


def test_another_coordinators_ca_trusts_nothing_here(tmp_path):
    home, other = make(tmp_path / "one"), make(tmp_path / "two")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(home, home.server_certificate, home.server_key, "study.example.org", authority=other.ca_certificate)


def load(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_ca_lasts_ten_years_and_is_one_that_sites_accept(tmp_path):
    home = make(tmp_path, now=NOW)
    pem = home.ca_certificate.read_text()
    assert TypeAdapter(AuthorityPem).validate_python(pem) == pem
    check_authority_time(pem, NOW + timedelta(days=3652))
    with pytest.raises(IntegrityError):
        check_authority_time(pem, NOW + timedelta(days=3653))


def test_what_the_ca_issues_may_issue_nothing(tmp_path):
    home = make(tmp_path, now=NOW)
    assert load(home.ca_certificate).extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    for path in (home.server_certificate, home.superlink_certificate):
        issued = load(path)
        issued.verify_directly_issued_by(load(home.ca_certificate))
        assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert not issued.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
        assert issued.not_valid_after_utc == NOW + timedelta(days=730)


def test_three_keys_are_three(tmp_path):
    home = make(tmp_path)
    keys = {path.read_bytes() for path in (home.ca_key, home.server_key, home.superlink_key)}
    assert len(keys) == 3


def test_renewing_keeps_keys_and_ca_and_takes_the_new_address(tmp_path):
    home = make(tmp_path)
    kept = {path: path.read_bytes() for path in (*home.keys.glob("*.key"), home.ca_certificate)}
    renew_certificates(home, "192.0.2.7:443", TODAY)
    assert {path: path.read_bytes() for path in kept} == kept
    shake_hands(home, home.server_certificate, home.server_key, "192.0.2.7")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(home, home.server_certificate, home.server_key, "study.example.org")


def test_nothing_is_issued_beyond_the_ca(tmp_path):
    home = make(tmp_path, now=NOW)
    renew_certificates(home, ADDRESS, NOW + timedelta(days=3600))
    assert load(home.server_certificate).not_valid_after_utc == load(home.ca_certificate).not_valid_after_utc


def test_a_ca_key_open_to_others_or_of_another_ca_issues_nothing(tmp_path):
    home, other = make(tmp_path / "one"), make(tmp_path / "two")
    before = home.server_certificate.read_bytes()
    home.ca_key.chmod(0o644)
    with pytest.raises(ConfigError, match="mode 0644"):
        renew_certificates(home, ADDRESS, TODAY)
    home.ca_key.chmod(0o600)
    home.ca_key.write_bytes(other.ca_key.read_bytes())
    with pytest.raises(IntegrityError, match="is not the certificate of"):
        renew_certificates(home, ADDRESS, TODAY)
    home.ca_certificate.write_text("junk")
    with pytest.raises(IntegrityError, match="no certificate"):
        renew_certificates(home, ADDRESS, TODAY)
    assert home.server_certificate.read_bytes() == before


def test_keys_are_never_drawn_over_others(tmp_path):
    home = make(tmp_path)
    before = home.ca_key.read_bytes()
    with pytest.raises(ConfigError, match="never replaced"):
        create_certificates(home, "sepsis", ADDRESS, TODAY)
    assert home.ca_key.read_bytes() == before


def levels(home, days, address=ADDRESS):
    return [finding.level for finding in certificate_findings(home, address, NOW + timedelta(days=days))]


def test_findings_say_what_ends_soon_and_what_has_ended(tmp_path):
    home = make_coordinator(tmp_path)
    assert levels(home, 0) == ["pass"] * 4
    assert levels(home, -1) == ["fail", "fail", "fail", "pass"]
    assert levels(home, 701) == ["pass", "warn", "warn", "pass"]
    assert levels(home, 731) == ["pass", "fail", "fail", "pass"]
    assert levels(home, 3640)[0] == "warn"
    assert levels(home, 0, "192.0.2.7:9443") == ["pass", "pass", "pass", "fail"]
    assert levels(home, 0, "study.example.org:443") == ["pass"] * 4


def test_no_warning_is_hidden(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(tmp_path)
