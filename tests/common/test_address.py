import ipaddress

import pytest
from pydantic import TypeAdapter, ValidationError

from common.address import Address, AddressText, parse_address
from common.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "host", "port", "spelled"),
    [
        ("study.example.org:443", "study.example.org", 443, "study.example.org:443"),
        ("Study.Example.ORG:443", "study.example.org", 443, "study.example.org:443"),
        ("localhost:1", "localhost", 1, "localhost:1"),
        ("a-1.b:65535", "a-1.b", 65535, "a-1.b:65535"),
        ("xn--kln-sna.example:443", "xn--kln-sna.example", 443, "xn--kln-sna.example:443"),
        ("192.0.2.7:9443", "192.0.2.7", 9443, "192.0.2.7:9443"),
        ("127.0.0.1:9443", "127.0.0.1", 9443, "127.0.0.1:9443"),
        ("[2001:db8::7]:9443", "2001:db8::7", 9443, "[2001:db8::7]:9443"),
        ("[2001:0DB8:0:0::7]:9443", "2001:db8::7", 9443, "[2001:db8::7]:9443"),
        ("[::1]:9443", "::1", 9443, "[::1]:9443"),
    ],
)
def test_an_address_is_read_and_spelled_one_way(text, host, port, spelled):
    address = parse_address(text)
    assert address == Address(host, port)
    assert str(address) == spelled
    assert parse_address(spelled) == address


def test_what_is_an_ip_address_says_so():
    assert parse_address("study.example.org:443").ip is None
    assert parse_address("192.0.2.7:443").ip == ipaddress.ip_address("192.0.2.7")
    assert parse_address("[2001:db8::7]:443").ip == ipaddress.ip_address("2001:db8::7")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":443",
        "host",
        "host:",
        "host:0",
        "host:0443",
        "host:65536",
        "host:99999999",
        "host:-1",
        "host:+1",
        "host: 443",
        "host:443 ",
        "host:443\n",
        "host:４４３",  # noqa: RUF001 - digits of another script
        " host:443",
        "ho st:443",
        "host/path:443",
        "https:" + "//host:443",
        "user@host:443",
        "host\\:443",
        "host?:443",
        "host#:443",
        "%68ost:443",
        "-host:443",
        "host-:443",
        "host..org:443",
        ".host:443",
        "host.org.:443",
        "_host:443",
        "köln.example:443",
        "exаmple.org:443",  # noqa: RUF001 - a Cyrillic letter
        "\u212a.example:443",  # the Kelvin sign, whose lower case is an ASCII letter
        "x" * 64 + ":443",
        ".".join(["x" * 60] * 5) + ":443",
        "300.1.1.1:443",
        "127.1:443",
        "1:443",
        "0x7f.0x1:443",
        "127.0.0.01:443",
        "0.0.0.0:443",
        "224.0.0.1:443",
        "2001:db8::7:443",
        "[2001:db8::7]",
        "[2001:db8::7",
        "2001:db8::7]:443",
        "[host]:443",
        "[192.0.2.7]:443",
        "[::]:443",
        "[ff02::1]:443",
        "[fe80::1%eth0]:443",
        "[]:443",
        "[[::1]]:443",
    ],
)
def test_anything_else_is_one_sentence_with_a_hint(text):
    with pytest.raises(ConfigError, match="the address") as caught:
        parse_address(text)
    assert "HOST:PORT" in caught.value.hint
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


def test_in_a_document_only_the_one_spelling_stands():
    adapter = TypeAdapter(AddressText)
    assert adapter.validate_python("study.example.org:443") == "study.example.org:443"
    with pytest.raises(ValidationError, match="must be spelled study"):
        adapter.validate_python("Study.example.org:443")
    with pytest.raises(ValidationError, match="port from 1 to 65535"):
        adapter.validate_python("study.example.org")
