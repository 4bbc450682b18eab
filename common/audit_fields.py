"""What a field of an audit log may be: names, keys, digests, codes, counts and times, and no free text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict

from common.fields import MOST_LABELS, SITE_NAME

ReleaseClass = Literal["masked", "noised and charged", "key material", "public"]
"""What a field that leaves a site is.

masked: charged for, and readable in the sum over the sites alone. noised and charged: the output of a mechanism that
was paid for. key material: random, and about nobody; what it opens is for `client.secagg` to say. public: nothing about
patients at all.

There is no class for anything else, so that a raw value has no way to be listed.
"""

_MOST_REVEALING_FIRST: tuple[ReleaseClass, ...] = ("noised and charged", "masked", "key material", "public")


def _is_name_of_a_person(text: str) -> str:
    if not text.strip() or not all(letter.isalnum() or letter in " .'@_-" for letter in text):
        raise ValueError("a person's name has letters, digits, spaces and the signs . ' @ _ -")
    return text


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=rf"^{SITE_NAME.pattern}$")]
Label = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]
Labels = Annotated[tuple[Label, ...], Strict(strict=False), Field(max_length=MOST_LABELS)]
Person = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_is_name_of_a_person)]
Version = Annotated[str, Field(pattern=r"^[0-9][0-9a-z.+-]{0,39}$")]
Command = Annotated[str, Field(pattern=r"^[a-z][a-z -]{0,39}$")]
MessageKind = Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]{0,39}$")]
Address = Annotated[str, Field(pattern=r"^([0-9a-f.:]{2,45}(/[0-9]{1,3})?|others|unknown)$")]
FleetPath = Annotated[str, Field(pattern=r"^(/v1/fleet/[a-z0-9/-]{1,64}|other)$")]
Time = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?Z$")]
Count = Annotated[int, Field(ge=0, lt=2**53)]
RoundNumber = Annotated[int, Field(ge=1)]
ExitCode = Annotated[int, Field(ge=0, le=255)]
Part = Literal["site", "coordinator", "superlink", "gateway"]
Kept = Literal["ledger", "audit", "inbox", "run", "sequences", "plans", "approvals", "keys"]
"""What a party keeps on disk and would notice to be lost, damaged or old."""


def most_revealing(bytes_by_class: Mapping[ReleaseClass, int]) -> ReleaseClass:
    """The class that says most about patients among those with bytes in them; public when there are none."""
    return next((name for name in _MOST_REVEALING_FIRST if bytes_by_class.get(name)), "public")
