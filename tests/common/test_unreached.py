import errno
import os
import socket
import ssl

import httpx
import pytest

from common.unreached import why_unreached


def wrapped(cause: BaseException) -> Exception:
    """As a library raises it, two layers above the cause."""
    try:
        try:
            raise cause
        except BaseException as inner:
            raise RuntimeError("inner layer") from inner
    except RuntimeError as middle:
        error = httpx.ConnectError("outer layer")
        error.__cause__ = middle
    return error


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "the connection was refused"),
        (socket.gaierror(-2, "Name or service not known"), "its name cannot be looked up"),
        (TimeoutError("timed out"), "there was no answer in time"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "no TLS connection came about"),
        (OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH)), "network is unreachable"),
        (OSError("without a number"), "the connection broke off"),
        (ValueError("no word of the system"), "the connection broke off"),
    ],
)
def test_the_system_gives_the_reason(cause: BaseException, words: str) -> None:
    assert why_unreached(cause) == why_unreached(wrapped(cause)) == words


def test_a_proxy_that_refuses_is_named() -> None:
    assert why_unreached(httpx.ProxyError("407 Proxy Authentication Required")) == "the proxy refuses the way there"


def test_a_real_call_to_nobody() -> None:
    with pytest.raises(httpx.ConnectError) as caught, httpx.Client(trust_env=False) as client:
        client.get("http:" + "//127.0.0.1:9")
    assert why_unreached(caught.value) == "the connection was refused"


def test_causes_that_run_in_a_circle_end() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert why_unreached(first) == "the connection broke off"
