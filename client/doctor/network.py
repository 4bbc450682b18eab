"""The way from a hospital to its coordinator, as `cloister-site doctor` sees it: proxy, TLS, gateway, clock.

One request leaves, to the pinned address, with nothing of the site in it: a call that no gateway lets pass. Its refusal
proves that the gateway is there, shows its certificate, and says the coordinator's time.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from cryptography import x509

from client.config import NetworkConfig, load_site_config
from client.doctor.files import WARNING_DAYS, is_enrolled
from client.enrolment import read_pinned
from client.home import SiteHome
from client.node_process import running_node
from common.address import parse_address
from common.errors import AccessError, ConfigError, TransportError
from common.findings import Finding
from common.processes import can_be_seen, family_of, listeners_of
from common.unreached import why_unreached

REFUSED_CALL = "/v1/control/list-runs"
"""A call of the SuperLink's inner API; the gateway refuses it, and it would change nothing."""

AHEAD_SECONDS, BEHIND_SECONDS = 5, 305
"""Flower's node authentication signs the time: a node's clock may be so far ahead, or behind, and no further
(`flwr.common.constant.SYSTEM_TIME_TOLERANCE`, and `TIMESTAMP_TOLERANCE` more)."""

_WORTH_TELLING_SECONDS = 2
_PATIENCE_SECONDS = 5.0
_REFUSED_BODY = b"refused\n"
_BODY_LIMIT = 4096


@dataclass(frozen=True)
class Refusal:
    """What came back.

    Attributes:
        status: Of HTTP.
        body: Its first bytes.
        certificate: What the other side showed.
        ahead_seconds: How far this clock is ahead of the other; None where the other side does not say its time.
    """

    status: int
    body: bytes
    certificate: x509.Certificate
    ahead_seconds: float | None


# --- proxy -----------------------------------------------------------------------------------------------------------


def proxy_findings(home: SiteHome) -> Iterator[Finding]:
    """Which way calls take, and whether the further CA file of the settings can be read."""
    network = load_site_config(home.config).network
    _authority_text("", network)
    if network.proxy is not None:
        yield Finding("pass", "proxy", f"through {network.proxy}, as network.proxy says")
        return
    proxies = getproxies()
    proxy = proxies.get("https") or proxies.get("all")
    if proxy is None:
        yield Finding("pass", "proxy", "none: calls go straight to the coordinator")
    elif is_enrolled(home) and proxy_bypass(_host(home)):
        yield Finding("pass", "proxy", f"NO_PROXY leaves the coordinator out of {_without_secret(proxy)}")
    else:
        yield Finding("pass", "proxy", f"through {_without_secret(proxy)}, as HTTPS_PROXY says")


def _host(home: SiteHome) -> str:
    return parse_address(read_pinned(home).invitation.address).host


def _without_secret(proxy: str) -> str:
    """A proxy's host and port: before them a URL may have a password."""
    return urlsplit(proxy if "://" in proxy else f"//{proxy}").netloc.rpartition("@")[2] or "a proxy"


# --- the coordinator -------------------------------------------------------------------------------------------------


def reach_findings(home: SiteHome, now: datetime) -> Iterator[Finding]:
    """Whether the pinned coordinator's gateway answers at its address, and how far the clocks are apart.

    Raises:
        AccessError: When it shows another certificate than the pinned authority issued for that address.
        TransportError: When nobody answers.
    """
    if not is_enrolled(home):
        return
    invitation, network = read_pinned(home).invitation, load_site_config(home.config).network
    authority = _authority_text(invitation.ca_certificate, network)
    refusal = knock(invitation.address, authority, network.proxy)
    yield from gateway_findings(invitation.address, refusal)
    yield from certificate_findings(refusal.certificate, now)
    yield skew_finding(refusal.ahead_seconds)


def knock(address: str, authority: str, proxy: str | None, patience_seconds: float = _PATIENCE_SECONDS) -> Refusal:
    """Make the one call.

    Args:
        address: HOST:PORT.
        authority: PEM certificates that are trusted, and no others.
        proxy: HOST:PORT; None for what the environment says.
        patience_seconds: For each wait on the network.

    Raises:
        AccessError: When the certificate is another's, of another time, or of another address.
        TransportError: When nobody answers.
    """
    begun = datetime.now(UTC)
    try:
        with (
            httpx.Client(
                verify=_trusting(authority),
                timeout=patience_seconds,
                trust_env=proxy is None,
                proxy=f"http://{proxy}" if proxy else None,
            ) as client,
            client.stream("POST", f"https://{address}{REFUSED_CALL}", content=b"") as response,
        ):
            # In DER: the pieces that Python itself would pick out leave much out.
            shown = response.extensions["network_stream"].get_extra_info("ssl_object").getpeercert(True)
            body = next(response.iter_raw(_BODY_LIMIT), b"")[:_BODY_LIMIT]
            ahead = _ahead_of(response.headers.get("date"), begun)
    except httpx.HTTPError as error:
        raise _unreached(address, error) from None
    return Refusal(response.status_code, body, x509.load_der_x509_certificate(shown), ahead)


def gateway_findings(address: str, refusal: Refusal) -> Iterator[Finding]:
    """Whether what answered is a gateway, which refuses all but a node's calls."""
    if (refusal.status, refusal.body) == (httpx.codes.NOT_FOUND, _REFUSED_BODY):
        yield Finding("pass", "coordinator's port", f"a gateway answers at {address}, and refuses what it should")
        return
    sentence = f"{address} answered a call that a gateway refuses with HTTP {refusal.status}"
    mend = "tell the coordinator: without its gateway, whoever reaches the SuperLink commands it"
    yield Finding("fail", "coordinator's port", sentence, mend)


def certificate_findings(certificate: x509.Certificate, now: datetime) -> Iterator[Finding]:
    """Whether the certificate that was shown, and that fitted, ends soon."""
    last = certificate.not_valid_after_utc
    if last - now < timedelta(days=WARNING_DAYS):
        sentence = f"the coordinator's certificate ends on {last:%Y-%m-%d}"
        yield Finding("warn", "TLS", sentence, "ask the coordinator to run `cloister-coordinator renew`")
    else:
        yield Finding("pass", "TLS", f"the pinned authority issued the certificate; it is valid until {last:%Y-%m-%d}")


def skew_finding(ahead_seconds: float | None) -> Finding:
    """How far the clocks are apart; Flower turns a node away whose signed time is far from its own."""
    if ahead_seconds is None:
        sentence = "the coordinator does not say its time, so that the clocks were not compared"
        return Finding("warn", "clock", sentence, "compare them by phone: they may differ by a few seconds")
    apart = f"{abs(ahead_seconds):.0f} s {'ahead of' if ahead_seconds > 0 else 'behind'} the coordinator's"
    mend = "set the clock, and let a time service keep it; ask the coordinator to look at its own"
    if not -BEHIND_SECONDS < ahead_seconds < AHEAD_SECONDS:
        rule = f"the clock is {apart}; it may be {AHEAD_SECONDS} s ahead or {BEHIND_SECONDS} s behind"
        return Finding("fail", "clock", rule, mend)
    if not -60 < ahead_seconds < _WORTH_TELLING_SECONDS:
        return Finding("warn", "clock", f"the clock is {apart}", mend)
    return Finding("pass", "clock", "the clocks of site and coordinator agree")


def _ahead_of(date: str | None, begun: datetime) -> float | None:
    """The fewest seconds that explain an HTTP date, cut to the second, that was written between `begun` and now."""
    try:
        told = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    if told.tzinfo is None:
        return None
    least, most = (begun - told).total_seconds() - 1, (datetime.now(UTC) - told).total_seconds()
    return least if least > 0 else min(most, 0.0)


def _trusting(authority: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=authority)
    except (ssl.SSLError, ValueError):
        raise ConfigError(
            "a certificate authority of this site is no PEM certificate",
            hint="look at network.extra_ca_file in site.toml, or accept the coordinator's invitation again",
        ) from None
    return context


def _authority_text(pinned: str, network: NetworkConfig) -> str:
    if network.extra_ca_file is None:
        return pinned
    try:
        return f"{pinned}\n{Path(network.extra_ca_file).read_text(encoding='ascii')}"
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            f"network.extra_ca_file {network.extra_ca_file} cannot be read", hint="name a PEM file, or leave it out"
        ) from None


def _unreached(address: str, error: httpx.HTTPError) -> TransportError:
    reason = str(error)
    if "CERTIFICATE_VERIFY_FAILED" not in reason:
        hint = "check that it is running, the address, and any proxy or firewall between"
        return TransportError(f"{address} cannot be reached: {why_unreached(error)}", hint=hint)
    if "mismatch" in reason:
        rule, hint = "is for another address", "ask the coordinator for a new invitation"
    elif "expired" in reason or "not yet valid" in reason:
        rule, hint = "is not valid now", "compare the clocks; else ask for `cloister-coordinator renew`"
    else:
        rule = "was not issued by the pinned authority"
        hint = "does a proxy open TLS here (network.extra_ca_file)? else this is not the coordinator that you accepted"
    return AccessError(f"the certificate that {address} shows {rule}", hint=hint)


# --- nothing listens -------------------------------------------------------------------------------------------------


def listening_findings(home: SiteHome) -> Iterator[Finding]:
    """Whether the running node, or anything that it started, listens on a port: it must not."""
    process = running_node(home)
    if process is None:
        yield Finding("pass", "ports", "no node runs here, so that none listens")
    elif process == 0 or not can_be_seen():
        rule = "the node is just starting" if process == 0 else "this system does not say who listens"
        yield Finding("warn", "ports", rule, "look again once it runs, or ask the system who listens")
    else:
        yield from _listening(process)


def _listening(process: int) -> Iterator[Finding]:
    try:
        found = listeners_of(family_of(process))
    except PermissionError:
        sentence = f"the sockets of process {process} may not be looked at"
        yield Finding("warn", "ports", sentence, "run the doctor as the account that runs the node")
        return
    if not found:
        yield Finding("pass", "ports", f"the node, process {process}, listens on no port")
    mend = "stop the node, and tell us: a site opens connections, and never listens"
    yield from (Finding("fail", "ports", f"process {process} listens on {one}", mend) for one in found)
