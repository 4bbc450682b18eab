"""Moments in signed documents: UTC, whole seconds, hence one spelling each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime


def current_moment() -> datetime:
    """The machine's clock in UTC, cut to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def moment_text(moment: datetime) -> str:
    """A moment as documents spell it, cut to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _in_one_spelling(moment: datetime) -> datetime:
    if moment.utcoffset() != timedelta(0) or moment.microsecond:
        raise ValueError("must be in UTC and of whole seconds")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_in_one_spelling)]
"""A moment as `2026-11-05T09:30:00Z`."""
