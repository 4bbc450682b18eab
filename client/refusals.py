"""Why a site refuses to go on with the protocol, as errors with the code that the coordinator is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import CloisterError, ProtocolError, SecureAggregationError
from common.fields import RefusalCode


class UnsafeRequestError(ProtocolError):
    """A request that breaks the protocol; `code` is what the coordinator is told."""

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code: RefusalCode = code


class TooFewSitesAgreeError(SecureAggregationError):
    """Too few sites take part in what is asked; `code` is what the coordinator is told."""

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code: RefusalCode = code


class RequestRefusedError(CloisterError):
    """A request is answered with a refusal; `code` is what the coordinator is told."""

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code: RefusalCode = code


@contextmanager
def refused_as(code: RefusalCode, kind: type[CloisterError]) -> Iterator[None]:
    """What goes wrong inside, in this way, is answered with this code."""
    try:
        yield
    except kind as error:
        raise RequestRefusedError(code, error.message) from None
