"""Why a site refuses to go on with the protocol, as errors with the code that the coordinator is told."""

from __future__ import annotations

from common.errors import ProtocolError, SecureAggregationError
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
