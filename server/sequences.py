"""The numbers of a coordinator's requests, and how far each site has answered: both only grow, over any restart."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from common.canonical import canonical_bytes
from common.config import StrictConfig
from common.envelope import LARGEST_STEP
from common.errors import IntegrityError
from common.files import write_durably

BLOCK = 64
"""Numbers that are reserved at once; a restart skips what is left of a block, and nothing else."""

LARGEST_CLAIM = 2**30
"""A site that claims to have answered more is not believed: it would use up the numbers, of which there are 2^31."""

_PRIVATE_MODE = 0o600

Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Place:
    """Where a request stands: its number, and the highest answered one that the coordinator has seen."""

    sequence: int
    acknowledged: int


class _Site(StrictConfig):
    """Numbers up to `reserved` may have been used."""

    reserved: Count = 0
    acknowledged: Count = 0

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.acknowledged > self.reserved:
            raise ValueError("more was answered than asked")
        return self


class _Book(StrictConfig):
    format_version: Literal[1] = 1
    federation: str
    sites: dict[str, _Site] = Field(default_factory=dict)


class Sequences:
    """The durable numbers of one coordinator in one federation.

    Guarantees:
        A number that `take` returns is higher than every number it returned before for that site, over any number of
        restarts and kills, and than every one that the site has said to have answered; and no farther beyond that one
        than a site accepts (`LARGEST_STEP`). What `take` returns as acknowledged is on disk before, and never shrinks.

    Edge cases:
        A restart skips at most `BLOCK` numbers a site. A lost file begins anew at 1; sites refuse what is past, say how
        far they are, and `learn` goes on from there. One run at a time: a second process with the file takes higher
        numbers, which make the first one's past at the sites, until one of the two is refused here. A site that was
        enrolled anew has another key, and begins anew. To a site that left 2^20 requests unanswered the last number is
        used again until it answers one of them: the site takes one of these orders, and its answer names which.

    Args:
        path: The file; begun when the first numbers are taken. Its folder must exist.
        federation: 64 hexadecimal digits.

    Raises:
        IntegrityError: When the file is damaged or of another federation.
    """

    def __init__(self, path: Path, federation: str) -> None:
        self._path = path
        self._federation = federation
        self._on_disk = self._read()
        self._sites = dict(self._on_disk.sites)
        # What is left of a block may have been used before a kill.
        self._used = {site: state.reserved for site, state in self._sites.items()}

    def take(self, sites: Collection[str]) -> Mapping[str, Place]:
        """The next number for a request to each site.

        Args:
            sites: Public keys.

        Raises:
            IntegrityError: When the file was changed by somebody else.
            OSError: When the disk does not take the numbers; none is used.
        """
        used = {site: min(self._used.get(site, 0) + 1, self._farthest(site)) for site in sites}
        for site, number in used.items():
            state = self._state(site)
            if number > state.reserved:
                reserved = min(number + BLOCK - 1, self._farthest(site))
                self._sites[site] = state.model_copy(update={"reserved": reserved})
        self.save()
        self._used |= used
        return {site: Place(number, self._sites[site].acknowledged) for site, number in used.items()}

    def learn(self, site: str, answered: int) -> bool:
        """Take note of how far a site has signed that it has answered; on disk with the next `save` or `take`.

        Edge cases:
            A site that is further than any number used here shows that this file was lost or is an older copy; the
            numbers go on after it. A lie in this costs the site that tells it its own numbers, and nobody else.

        Returns:
            Whether the site was further than this file.
        """
        state = self._state(site)
        if answered <= state.acknowledged or answered > LARGEST_CLAIM:
            return False
        self._sites[site] = _Site(reserved=max(state.reserved, answered), acknowledged=answered)
        used = self._used.get(site, 0)
        self._used[site] = max(used, answered)
        return answered > used

    def save(self) -> None:
        """Write down what was taken and learnt since the last time, if anything.

        Raises:
            IntegrityError: When the file was changed by somebody else.
            OSError: When the disk does not take it.
        """
        book = self._on_disk.model_copy(update={"sites": dict(self._sites)})
        if book == self._on_disk:
            return
        if self._read() != self._on_disk:
            raise self._unfit("was changed by somebody else")
        write_durably(self._path, canonical_bytes(book.model_dump(mode="json")) + b"\n", mode=_PRIVATE_MODE)
        self._on_disk = book

    def _farthest(self, site: str) -> int:
        """The highest number that the site accepts, whichever of the requests so far have reached it."""
        return self._state(site).acknowledged + LARGEST_STEP

    def _state(self, site: str) -> _Site:
        return self._sites.get(site, _Site())

    def _read(self) -> _Book:
        try:
            book = _Book.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _Book(federation=self._federation)
        except ValidationError:
            raise self._unfit("is damaged, or not one that this version writes") from None
        if book.federation != self._federation:
            raise self._unfit("belongs to another federation")
        return book

    def _unfit(self, rule: str) -> IntegrityError:
        return IntegrityError(
            f"the numbers of requests {self._path} {rule}",
            hint="one run at a time; a damaged file may be moved away: sites say how far they are",
        )
