"""Where a coordinator is met: a DNS name, an IPv4 or an [IPv6] address, and a port."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from common.errors import ConfigError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LONGEST_NAME = 253
_HIGHEST_PORT = 65535
_HINT = "write HOST:PORT, as in study.example.org:443, 192.0.2.7:9443 or [2001:db8::7]:9443"


@dataclass(frozen=True)
class Address:
    """A host and a port, in one spelling.

    Attributes:
        host: A DNS name in lower case, or an IP address without brackets.
        port: 1 to 65535.
    """

    host: str
    port: int

    @property
    def ip(self) -> IPAddress | None:
        """The host as an IP address, or None where it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read `HOST:PORT`; a name's case and an IPv6 address' spelling are made the one way.

    Raises:
        ConfigError: When it is none, or one that nobody can call, such as 0.0.0.0.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > _HIGHEST_PORT:
        raise _unfit(text, "does not end with a port from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return Address(_ipv6(text, host[1:-1]), int(port))
    return Address(_ipv4_or_name(text, host.lower() if host.isascii() else host), int(port))


def _unfit(text: str, rule: str) -> ConfigError:
    shown = repr(text) if len(text) <= 80 else f"{text[:77]!r}..."
    return ConfigError(f"the address {shown} {rule}", hint=_HINT)


def _ipv6(text: str, host: str) -> str:
    try:
        ip = ipaddress.IPv6Address(host)
    except ValueError:
        raise _unfit(text, "has no IPv6 address between its brackets") from None
    if ip.scope_id is not None:
        raise _unfit(text, "names an interface, which means nothing to another machine")
    return _callable(text, ip)


def _ipv4_or_name(text: str, host: str) -> str:
    try:
        return _callable(text, ipaddress.IPv4Address(host))
    except ValueError:
        pass
    labels = host.split(".")
    if len(host) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise _unfit(text, "has a host that is neither a DNS name in ASCII nor an IP address")
    # No top-level domain is a number; 300.1.1.1 and 127.1 are spelling mistakes, or worse.
    if labels[-1].isdigit() or labels[-1].startswith("0x"):
        raise _unfit(text, "has a host that is neither a DNS name nor an IPv4 address of four numbers up to 255")
    return host


def _callable(text: str, ip: IPAddress) -> str:
    if ip.is_unspecified or ip.is_multicast:
        raise _unfit(text, "is one at which nobody can be called")
    return str(ip)


def _in_one_spelling(text: str) -> str:
    try:
        address = parse_address(text)
    except ConfigError as error:
        raise ValueError(error.message) from None
    if str(address) != text:
        raise ValueError(f"must be spelled {address}")
    return text


AddressText = Annotated[str, AfterValidator(_in_one_spelling)]
"""`HOST:PORT` in the one spelling."""
