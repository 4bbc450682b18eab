"""What a doctor can say about the machine itself: room on the disk, the clock, the installed libraries."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from common.findings import Finding

_LITTLE_ROOM, _HARDLY_ROOM = 5 * 2**30, 500 * 2**20
# Two clocks of one machine never differ; a log that several processes write may be a moment ahead.
_SLACK = timedelta(seconds=5)
_SHOWN = ("torch", "transformers", "peft", "opacus", "cryptography", "numpy", "flwr")


def room_finding(folder: Path) -> Finding:
    """Whether the disk under a folder has room: books must always find some, and a base model needs gigabytes."""
    free = shutil.disk_usage(folder).free
    sentence = f"{free / 2**30:.1f} GiB are free"
    if free < _HARDLY_ROOM:
        return Finding("fail", "disk", sentence, "make room: without 500 MiB a book may not find any in a round")
    if free < _LITTLE_ROOM:
        return Finding("warn", "disk", sentence, "make room: a base model and its adapters may take several GiB")
    return Finding("pass", "disk", sentence)


def clock_finding(now: datetime, latest: datetime | None) -> Finding:
    """Whether the clock stands before something that this home has written down already.

    Args:
        now: The clock.
        latest: The latest time in the home's own books; None where nothing was written yet.
    """
    if latest is not None and now < latest - _SLACK:
        sentence = f"the clock says {now:%Y-%m-%d %H:%M:%S}, and this home has written at {latest:%Y-%m-%d %H:%M:%S}"
        return Finding("fail", "own clock", sentence, "set the clock, and let a time service keep it (UTC)")
    return Finding("pass", "own clock", f"{now:%Y-%m-%d %H:%M:%S} UTC, not before anything written here")


def stack_findings(extra: str, distribution: str = "cloister") -> Iterator[Finding]:
    """Whether the libraries are of the versions that Cloister was tested with, as its own package says.

    Args:
        extra: `site` or `coordinator`.
        distribution: The installed package that asks for the others.
    """
    try:
        asked = [Requirement(text) for text in metadata.requires(distribution) or ()]
    except metadata.PackageNotFoundError:
        sentence = "Cloister is not installed as a package, so nobody says which versions it needs"
        yield Finding("warn", "libraries", sentence, f"pip install 'cloister[{extra}]'")
        return
    needed = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": extra})]
    unfit = [fault for one in needed if (fault := _unfit(one)) is not None]
    mend = f"pip install 'cloister[{extra}]' in an environment of its own, with -c constraints.txt"
    yield from (Finding("fail", "libraries", fault, mend) for fault in unfit)
    if not unfit:
        shown = ", ".join(f"{one.name} {metadata.version(one.name)}" for one in needed if one.name in _SHOWN)
        yield Finding("pass", "libraries", f"all {len(needed)} are of tested versions: {shown}")


def _unfit(requirement: Requirement) -> str | None:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    # A build such as 2.13.0+cpu is the version 2.13.0.
    if requirement.specifier.contains(version.partition("+")[0], prereleases=True):
        return None
    return f"{requirement.name} is {version}, and {requirement.specifier} was tested"
