"""What listens at a coordinator, as its doctor sees it: the gateway for all, the SuperLink for the gateway alone."""

from __future__ import annotations

import ipaddress
import os
import shutil
import ssl
import sysconfig
from collections.abc import Iterator

import httpx

from common.address import Address, parse_address
from common.errors import ConfigError, TransportError
from common.findings import Finding
from common.processes import Listener, can_be_seen, family_of, listeners, listeners_of
from server.config import CoordinatorConfig, load_coordinator_config
from server.gateway.rules import REFUSED_BODY
from server.home import CoordinatorHome
from server.service_status import service_process

REFUSED_CALL = "/v1/control/list-runs"
"""A call of the SuperLink's inner API; the gateway refuses it, and it would change nothing."""

EXECUTABLES = ("flower-superlink", "flower-superexec", "flwr-serverapp")
"""What the service starts, and what that starts."""

_PATIENCE_SECONDS = 5.0


def executable_findings() -> Iterator[Finding]:
    """Whether Flower's commands are there, beside this Python."""
    missing = [name for name in EXECUTABLES if shutil.which(name, path=sysconfig.get_path("scripts")) is None]
    if missing:
        sentence = f"{', '.join(missing)} cannot be started here"
        yield Finding("fail", "Flower", sentence, "pip install 'cloister[coordinator]'")
    else:
        yield Finding("pass", "Flower", "its commands are installed beside Cloister")


def port_findings(home: CoordinatorHome) -> Iterator[Finding]:
    """Whether both ports are free or the running service's own, and the SuperLink's is on loopback only."""
    config, process = load_coordinator_config(home.config), service_process(home)
    if not can_be_seen():
        yield Finding("warn", "ports", "this system does not say who listens", "ask the system who listens")
        return
    there = listeners()
    open_ones = [one for one in there if one.port == config.listen.superlink_port and not one.is_on_loopback]
    for one in open_ones:
        mend = "stop it now: whoever reaches the SuperLink commands it; only `cloister-coordinator start` starts it"
        yield Finding("fail", "SuperLink", f"somebody listens for all at the SuperLink's port, {one}", mend)
    own = frozenset[int]() if process is None else _own_sockets(process, config.listen.superlink_port)
    yield from _owned(config, there, own)
    if process is None:
        yield Finding("pass", "service", "it does not run")
    elif not _serves(config, there, own):
        sentence = f"process {process} runs, and does not listen on both of its ports"
        yield Finding("fail", "service", sentence, "is it just starting? else see superlink.log, and start it again")
    else:
        sentence = f"process {process} listens on port {config.gateway_port}, its SuperLink on loopback"
        yield Finding("pass", "service", sentence)


def _own_sockets(process: int, superlink_port: int) -> frozenset[int]:
    """Sockets of the service and of what it started.

    Edge cases:
        Flower closes its processes to everybody but root, also to the account that runs them: what listens on the
        SuperLink's port of loopback for that account is taken for the SuperLink.
    """
    try:
        own = {one.inode for one in listeners_of(frozenset({process}))}
    except PermissionError:
        raise ConfigError(
            f"the sockets of process {process} may not be looked at",
            hint="run the doctor as the account that runs the service",
        ) from None
    for pid in family_of(process):
        try:
            own |= {one.inode for one in listeners_of(frozenset({pid}))}
        except PermissionError:
            own |= {one.inode for one in listeners() if _is_superlink(one, superlink_port)}
    return frozenset(own)


def _is_superlink(one: Listener, port: int) -> bool:
    return one.owner == os.getuid() and one.is_on_loopback and one.port == port


def _owned(config: CoordinatorConfig, there: tuple[Listener, ...], own: frozenset[int]) -> Iterator[Finding]:
    for port, key in ((config.gateway_port, "listen.port"), (config.listen.superlink_port, "listen.superlink_port")):
        others = [one for one in there if one.protocol == "tcp" and one.port == port and one.inode not in own]
        if others:
            mend = f"stop that process, or set {key} in coordinator.toml"
            yield Finding("fail", "ports", f"another process listens on {others[0]}", mend)
        elif not own:
            yield Finding("pass", "ports", f"port {port} is free")


def _serves(config: CoordinatorConfig, there: tuple[Listener, ...], own: frozenset[int]) -> bool:
    held = {one.port for one in there if one.inode in own}
    return {config.gateway_port, config.listen.superlink_port} <= held


def gateway_findings(home: CoordinatorHome) -> Iterator[Finding]:
    """Whether the running gateway refuses a call of the SuperLink's inner API, as it does to hospitals.

    Raises:
        TransportError: When it does not answer, or with another certificate than the authority issued.
    """
    if service_process(home) is None:
        return
    config = load_coordinator_config(home.config)
    status, body = knock(home, _own_address(config), parse_address(config.address).host)
    if (status, body) == (httpx.codes.NOT_FOUND, REFUSED_BODY):
        yield Finding("pass", "gateway", f"it refuses {REFUSED_CALL}, as it must")
        return
    mend = "stop the service now: whoever reaches this port may command the SuperLink"
    yield Finding("fail", "gateway", f"{REFUSED_CALL} was answered with HTTP {status}", mend)


def knock(home: CoordinatorHome, address: Address, name: str) -> tuple[int, bytes]:
    """Make one call that no gateway lets pass.

    Args:
        home: Whose authority is trusted, and no other.
        address: Where the gateway listens.
        name: What its certificate must be for.

    Returns:
        HTTP status and body.

    Raises:
        ConfigError: When the authority cannot be read.
        TransportError: When nobody answers, or with another certificate.
    """
    # Straight there, whatever proxy this account uses.
    with httpx.Client(verify=_trusting(home), timeout=_PATIENCE_SECONDS, trust_env=False) as client:
        try:
            answer = client.post(f"https://{address}{REFUSED_CALL}", extensions={"sni_hostname": name})
        except httpx.HTTPError as error:
            raise TransportError(
                f"the gateway at {address} cannot be called: {str(error) or type(error).__name__}",
                hint="`cloister-coordinator status` shows the service; `renew` issues its certificate anew",
            ) from None
    return answer.status_code, answer.content


def _trusting(home: CoordinatorHome) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(home.ca_certificate)
    except OSError:
        hint = "restore it from a backup"
        raise ConfigError(f"{home.ca_certificate} is missing, or no certificate", hint=hint) from None
    return context


def _own_address(config: CoordinatorConfig) -> Address:
    """Where this machine itself reaches its gateway."""
    host = config.listen.host
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return Address(host, config.gateway_port)
    loopback = "127.0.0.1" if ip.version == 4 else "::1"
    return Address(loopback if ip.is_unspecified else host, config.gateway_port)
