"""Before the first round: show every site the plan, hand the base to those that lack it, and see who is ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import structlog

from common.errors import IntegrityError, RefusedError, TooFewSitesError
from common.fields import Outcome
from common.findings import counted
from common.messages import Refusal
from common.reasons import in_words
from common.signed_plan import SignedPlan, write_signed_plan
from common.study_messages import BaseNeed, BaseQuery, PlanAnswer, PlanOffer, RunNoted, RunOver
from common.transport import Transport
from common.wire import decode, encode
from server.base_store import BaseStore
from server.progress import SiteProgress, SiteState

_log = structlog.get_logger()

_PAUSE_SECONDS = 1.0
_PAUSE_GROWTH, _LONGEST_PAUSE_SECONDS = 0.05, 30.0
"""Pauses are a twentieth of what was waited so far: an hour later nobody minds half a minute, and each look leaves a
line in every site's audit log."""
_ENDED = {"refused"}
_AGREED = {"accepted", "fetching", "ready"}
_SLICE_SECONDS = 30.0
"""So long chunks are handed out before the other sites are asked again."""
_COPIES, _SPARE = 4, 100
"""A site may ask for so many copies of the base, and some chunks more: it gives up after three damaged ones itself."""

Answer = TypeVar("Answer", PlanAnswer, BaseNeed)


class Gathering:
    """Brings the sites of a plan to their first round.

    Guarantees:
        Each site is shown the same signed plan, and none is asked for the base or for a round before it has accepted,
        and neither before so many have that the run can be: making ready sets a hospital's budget aside for good.
        One chunk of the base is in memory for each site at a time. No answer, whatever its bytes, raises. No site can
        hold up the others: it gets the base a few times at most, others are asked while it fetches, the time that is
        over is over for it too, and so many changes of its state are told and no more.

    Edge cases:
        A site that is silent or waits for a person is asked again until the time is over; one that refused is asked
        again too, since the hospital may change its mind, but nobody waits for it alone. One that is late while it
        fetches is asked what it lacks in the next look.

    Args:
        signed: The plan.
        transport: How the sites are reached.
        store: The base.
        enough: Sites without which no round can succeed.
        observer: Told whenever a site's state changes.
        pause_seconds: Between the first looks at sites that are not ready; later pauses are longer.
    """

    def __init__(
        self,
        signed: SignedPlan,
        transport: Transport,
        store: BaseStore,
        enough: int,
        observer: Callable[[SiteProgress], None] = lambda _: None,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._signed = signed
        self._transport = transport
        self._store = store
        self._enough = enough
        self._observer = observer
        self._pause_seconds = pause_seconds
        self._chunks_left = dict.fromkeys(signed.plan.roster, _COPIES * store.chunk_count + _SPARE)
        self._told = dict.fromkeys(signed.plan.roster, 0)
        self._most_told = _COPIES * store.chunk_count + _SPARE
        self.states = {site: SiteProgress(site, "silent") for site in sorted(signed.plan.roster)}

    @property
    def ready(self) -> tuple[str, ...]:
        """Sites that can train, in order of name."""
        return tuple(site for site, state in self.states.items() if state.state == "ready")

    def run(self, seconds: float, *, wait_for_all: bool = True) -> tuple[str, ...]:
        """Go on until all sites are ready, or the time is over and enough are.

        Args:
            seconds: How long to wait at most.
            wait_for_all: Whether to wait for those that may still come when enough are ready.

        Returns:
            The sites that are ready.

        Raises:
            TooFewSitesError: When the time is over, or too many refused, with fewer than enough; names every reason.
        """
        started, next_offer = time.monotonic(), 0.0
        deadline = started + seconds
        while True:
            if not self._fetching or time.monotonic() >= next_offer:
                self._offer()
                self._let_fetch()
                next_offer = time.monotonic() + _SLICE_SECONDS
            self._hand_out(min(deadline, next_offer))
            ready, over = len(self.ready), time.monotonic() >= deadline
            if ready == len(self.states) or (ready >= self._enough and (over or not wait_for_all)):
                return self.ready
            if over or self._possible() < self._enough:
                raise self._too_few()
            waited = time.monotonic() - started
            time.sleep(max(self._pause_seconds, min(_PAUSE_GROWTH * waited, _LONGEST_PAUSE_SECONDS, seconds - waited)))

    @property
    def _fetching(self) -> tuple[str, ...]:
        return tuple(site for site, state in self.states.items() if state.state == "fetching")

    def _possible(self) -> int:
        return sum(state.state not in _ENDED for state in self.states.values())

    def _offer(self) -> None:
        document = np.frombuffer(write_signed_plan(self._signed), dtype=np.uint8)
        order = encode(PlanOffer(self._signed.digest, document))
        asked = [site for site, state in self.states.items() if state.state not in ("ready", "fetching")]
        gone = {site for site in asked if self.states[site].state in ("accepted", "not-ready")}
        for site, answer in self._answers(dict.fromkeys(asked, order), PlanAnswer):
            gone.discard(site)
            if isinstance(answer, Refusal):
                self._note(SiteProgress(site, "refused", (answer.code,)))
            elif answer.state == "accepted":
                # Why it was not ready in the last look stays to be seen until it fetches.
                last = self.states[site]
                again = last.state == "not-ready"
                state: SiteState = "fetching" if again else "accepted"
                self._note(SiteProgress(site, state, last.codes if again else (), last.fraction))
            else:
                self._note(SiteProgress(site, answer.state, answer.codes))

        for site in sorted(gone):  # its yes is of an earlier look: nobody shall make ready for the sake of it
            self._note(SiteProgress(site, "silent"))

    def _let_fetch(self) -> None:
        """Go on with all that have accepted, once they are enough."""
        if sum(state.state in _AGREED for state in self.states.values()) >= self._enough:
            for site, state in self.states.items():
                if state.state == "accepted":
                    self._note(SiteProgress(site, "fetching", state.codes, state.fraction))

    def _hand_out(self, until: float) -> None:
        """Chunk after chunk to each site that lacks one, all sites at once; then the others are looked at again."""
        orders = dict.fromkeys(self._fetching, encode(BaseQuery(self._signed.digest)))
        while orders and time.monotonic() < until:
            following: dict[str, bytes] = {}
            gone = set(orders)
            for site, answer in self._answers(orders, BaseNeed):
                gone.discard(site)
                if isinstance(answer, Refusal):
                    self._note(SiteProgress(site, "not-ready", (answer.code,)))
                else:
                    following |= self._next_chunk(site, answer)
            for site in sorted(gone):
                self._note(SiteProgress(site, "silent"))
            orders = following

    def _next_chunk(self, site: str, need: BaseNeed) -> dict[str, bytes]:
        if need.state == "complete":
            self._note(SiteProgress(site, "ready", fraction=1.0))
            return {}
        if need.state != "lacking":
            self._note(SiteProgress(site, "not-ready", (need.state,)))
            return {}
        self._chunks_left[site] -= 1
        try:
            chunk = self._store.answer(need) if self._chunks_left[site] >= 0 else None
        except RefusedError as error:
            _log.warning("no such chunk", site=site, reason=error.message)
            chunk = None
        if chunk is None:
            self._note(SiteProgress(site, "not-ready", ("malformed",)))
            return {}
        self._note(SiteProgress(site, "fetching", fraction=self._store.fraction_before(need)))
        return {site: encode(chunk)}

    def _answers(self, orders: Mapping[str, bytes], kind: type[Answer]) -> Iterator[tuple[str, Answer | Refusal]]:
        """What each asked site said, once; what cannot be read, or is of another plan or site, counts as silence."""
        heard = set()
        for site, frame in self._transport.exchange(orders) if orders else ():
            try:
                answer = decode(frame, kind, Refusal)
            except IntegrityError as error:
                _log.warning("answer ignored", site=site, reason=error.message)
                continue
            if site in heard or site not in orders or (answer.site, answer.plan_digest) != (site, self._signed.digest):
                continue
            heard.add(site)
            yield site, answer

    def _note(self, state: SiteProgress) -> None:
        if self.states[state.site] != state:
            self.states[state.site] = state
            self._told[state.site] += 1
            if self._told[state.site] <= self._most_told or state.state == "ready":
                self._observer(state)

    def _too_few(self) -> TooFewSitesError:
        told = "; ".join(f"{name}: {_in_words(state)}" for name, state in self.states.items() if state.state != "ready")
        return TooFewSitesError(
            f"{counted(len(self.ready), 'site is', 'sites are')} ready, and the plan needs {self._enough}: {told}",
            hint="`cloister-coordinator status` shows every reason; `run --resume` goes on once they are mended",
        )


def _in_words(state: SiteProgress) -> str:
    if state.codes:
        return f"{state.state}, " + ", ".join(in_words(code) for code in state.codes)
    return "no answer yet" if state.state == "silent" else state.state


def dismiss(signed: SignedPlan, transport: Transport, outcome: Outcome, sites: Iterable[str]) -> None:
    """Tell the sites that there are no more rounds; those that do not hear it lose nothing."""
    order = encode(RunOver(signed.digest, outcome))
    for site, frame in transport.exchange(dict.fromkeys(sites, order)):
        try:
            decode(frame, RunNoted, Refusal)
        except IntegrityError as error:
            _log.warning("answer ignored", site=site, reason=error.message)
