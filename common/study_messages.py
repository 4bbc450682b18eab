"""What coordinator and sites say to each other around the rounds: the plan, the base model, the end.

    before the rounds   PlanOffer    coordinator -> site   this is the signed plan
                        PlanAnswer   site -> coordinator   accepted, waiting for a person, or refused, with codes
                        BaseQuery    coordinator -> site   what do you lack of the plan's base?
                        BaseNeed     site -> coordinator   this chunk of this file; nothing; or given up
                        BaseChunk    coordinator -> site   a chunk of a file; answered with a BaseNeed
    after them          RunOver      coordinator -> site   there are no more rounds
                        RunNoted     site -> coordinator   understood

Files of a base are numbered from 1 in the order of their names, chunks of a file from 1; all but a file's last chunk
have `CHUNK_BYTES` bytes, and an empty file has one empty chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from common.fields import (
    BASE_STATE,
    CHUNK,
    DOCUMENT,
    LABELS,
    OUTCOME,
    PLACE,
    PLACE_OR_NONE,
    PLAN,
    PLAN_STATE,
    SITE,
    BaseState,
    Bytes,
    FieldRule,
    Outcome,
    PlanState,
)


@dataclass(frozen=True, eq=False)
class PlanOffer:
    """The coordinator shows the plan that it asks a site to take part in.

    Args:
        plan_digest: Digest of the plan; the site compares it with the document's.
        document: The signed plan, as it is written to a file.
    """

    plan_digest: str
    document: Bytes = field(repr=False)


@dataclass(frozen=True)
class PlanAnswer:
    """A site says whether it takes part.

    Args:
        plan_digest: As in the offer.
        site: Name of the site.
        state: accepted: it takes part. waiting: a person there has to approve it first. refused: it does not.
        codes: Why it waits or refuses, as labels in order; never text.
    """

    plan_digest: str
    site: str
    state: PlanState
    codes: tuple[str, ...]


@dataclass(frozen=True)
class BaseQuery:
    """The coordinator asks what a site lacks of the plan's base."""

    plan_digest: str


@dataclass(frozen=True)
class BaseNeed:
    """A site says which chunk of the base it needs next.

    Args:
        plan_digest: As in the query or chunk.
        site: Name of the site.
        state: lacking: it needs the chunk that is named. complete: it needs nothing. damaged: a file came with another
            hash than the plan's, again and again. no-room: the base is larger than the site's limit or its free disk.
        file_number: From 1; 0 unless something is lacking.
        chunk_number: From 1; 0 unless something is lacking.
    """

    plan_digest: str
    site: str
    state: BaseState
    file_number: int
    chunk_number: int


@dataclass(frozen=True, eq=False)
class BaseChunk:
    """A piece of one file of the base.

    Args:
        plan_digest: Of the plan that names the base.
        file_number: From 1.
        chunk_number: From 1.
        chunks: How many chunks the file has.
        content: `CHUNK_BYTES` bytes, or fewer in the last chunk.
    """

    plan_digest: str
    file_number: int
    chunk_number: int
    chunks: int
    content: Bytes = field(repr=False)


@dataclass(frozen=True)
class RunOver:
    """The coordinator says that the run has ended; nothing but the site's own tidying follows from it.

    Args:
        plan_digest: Of the run's plan.
        outcome: finished: there is a result. stopped: by a person. failed: by an error.
    """

    plan_digest: str
    outcome: Outcome


@dataclass(frozen=True)
class RunNoted:
    """A site has heard that the run is over."""

    plan_digest: str
    site: str


CoordinatorStudyMessage = PlanOffer | BaseQuery | BaseChunk | RunOver
SiteStudyMessage = PlanAnswer | BaseNeed | RunNoted

_PLACED: Mapping[str, FieldRule] = {"file_number": PLACE, "chunk_number": PLACE}
_NEEDED: Mapping[str, FieldRule] = {"file_number": PLACE_OR_NONE, "chunk_number": PLACE_OR_NONE}
STUDY_RULES: Mapping[type[Any], Mapping[str, FieldRule]] = {
    PlanOffer: {"plan_digest": PLAN, "document": DOCUMENT},
    PlanAnswer: {"plan_digest": PLAN, "site": SITE, "state": PLAN_STATE, "codes": LABELS},
    BaseQuery: {"plan_digest": PLAN},
    BaseNeed: {"plan_digest": PLAN, "site": SITE, "state": BASE_STATE, **_NEEDED},
    BaseChunk: {"plan_digest": PLAN, **_PLACED, "chunks": PLACE, "content": CHUNK},
    RunOver: {"plan_digest": PLAN, "outcome": OUTCOME},
    RunNoted: {"plan_digest": PLAN, "site": SITE},
}
"""Every message around the rounds and every field of it."""
