"""Why a call over the network came to nothing, in words that do not depend on the library that made it."""

from __future__ import annotations

from collections.abc import Iterator

_MOST_CAUSES = 10
_REFUSES = "the proxy refuses the way there"
_BROKE_OFF = "the connection broke off"


def why_unreached(error: BaseException) -> str:
    """A clause for the end of a sentence, as `the connection was refused`.

    Edge cases:
        What the system gave as the reason lies some causes behind what a library raises. Where there is none, the
        other side ended the connection, or spoke something else.

    Args:
        error: What the library raised.
    """
    for cause in _causes(error):
        name = type(cause).__name__  # socket, ssl and the libraries are not to be imported for their names
        if name == "ProxyError":
            return _REFUSES
        if isinstance(cause, OSError):
            return _of_system(cause, name)
    return _BROKE_OFF


def _of_system(error: OSError, name: str) -> str:
    if name in {"gaierror", "herror"}:
        return "its name cannot be looked up"
    if name.startswith("SSL"):
        return "no TLS connection came about"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, TimeoutError):
        return "there was no answer in time"
    return error.strerror.lower() if error.strerror else _BROKE_OFF


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it was raised from, the last first."""
    chain, cause = [error], error.__cause__ or error.__context__
    while cause is not None and len(chain) < _MOST_CAUSES:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return reversed(chain)
