import time
from datetime import timedelta

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import server.gathering
from common.errors import IntegrityError, RefusedError, TooFewSitesError, TransportError
from common.messages import Refusal
from common.moments import current_moment
from common.signed_plan import read_signed_plan, sign_plan
from common.study_messages import BaseChunk, BaseNeed, BaseQuery, PlanAnswer, PlanOffer, RunNoted, RunOver
from common.wire import decode, encode
from server.gathering import Gathering, dismiss

CHUNKS = 3


@pytest.fixture(scope="module")
def signed(make_plan):
    plan = make_plan(roster={name: str(number) * 64 for number, name in enumerate("abc", start=1)})
    now = current_moment()
    return sign_plan(plan, "f" * 64, now, now + timedelta(days=1), Ed25519PrivateKey.generate())


class Store:
    """A base of one file and three chunks."""

    chunk_count = CHUNKS

    def __init__(self, plan_digest):
        self.plan_digest = plan_digest
        self.read = []
        self.error = None

    def answer(self, need):
        if self.error is not None:
            raise self.error
        self.read.append((need.site, need.chunk_number))
        if need.file_number != 1 or not 0 < need.chunk_number <= CHUNKS:
            raise RefusedError("no such chunk")
        return BaseChunk(self.plan_digest, 1, need.chunk_number, CHUNKS, np.zeros(4, dtype=np.uint8))

    def fraction_before(self, need):
        return (need.chunk_number - 1) / CHUNKS


class Sites:
    """A transport to sites, each a function of the decoded order; what each was asked is kept."""

    def __init__(self, digest, **sites):
        self.digest = digest
        self.sites = sites
        self.asked = []

    def exchange(self, orders):
        for site, order in orders.items():
            message = decode(order, PlanOffer, BaseQuery, BaseChunk, RunOver)
            self.asked.append((site, type(message).__name__))
            said = self.sites[site](self, site, message)
            for answer in said if isinstance(said, list) else [said]:
                if answer is not None:
                    yield (site, answer if isinstance(answer, bytes) else encode(answer))

    def count(self, site, kind):
        return self.asked.count((site, kind))


def need(sites, site, state="lacking", file=1, chunk=1):
    return (
        BaseNeed(sites.digest, site, state, file, chunk)
        if state == "lacking"
        else BaseNeed(sites.digest, site, state, 0, 0)
    )


def good(sites, site, message):
    if isinstance(message, PlanOffer):
        return PlanAnswer(sites.digest, site, "accepted", ())
    if isinstance(message, BaseChunk) and message.chunk_number == message.chunks:
        return need(sites, site, "complete")
    return need(sites, site, chunk=message.chunk_number + 1 if isinstance(message, BaseChunk) else 1)


def has_base(sites, site, message):
    return good(sites, site, message) if isinstance(message, PlanOffer) else need(sites, site, "complete")


def silent(sites, site, message):
    return None


def greedy(sites, site, message):
    """Asks for the first chunk without end."""
    return good(sites, site, message) if isinstance(message, PlanOffer) else need(sites, site)


def answers(state, *codes):
    return lambda sites, site, message: PlanAnswer(sites.digest, site, state, codes)


@pytest.fixture
def gather(signed):
    def make(enough=2, **sites):
        transport = Sites(signed.digest, **sites)
        told = []
        gathering = Gathering(signed, transport, Store(signed.digest), enough, told.append, pause_seconds=0.001)
        gathering.told, gathering.transport, gathering.store = told, transport, gathering._store
        return gathering

    return make


# --- everybody is friendly -------------------------------------------------------------------------------------------


def test_all_get_the_plan_and_those_that_lack_it_the_base(gather):
    gathering = gather(a=good, b=has_base, c=good)
    assert gathering.run(5.0) == ("a", "b", "c")
    assert gathering.store.read == [(site, chunk) for chunk in (1, 2, 3) for site in ("a", "c")]
    assert [gathering.transport.count("a", kind) for kind in ("PlanOffer", "BaseQuery", "BaseChunk")] == [1, 1, 3]


def test_the_offer_is_the_signed_plan_itself(gather, signed):
    seen = []

    def reader(sites, site, message):
        if isinstance(message, PlanOffer):
            seen.append(read_signed_plan(message.document.tobytes()))
        return has_base(sites, site, message)

    gather(a=reader, b=reader, c=reader).run(5.0)
    assert [each.digest for each in seen] == [signed.digest] * 3


def test_changes_are_told_as_they_come(gather):
    gathering = gather(a=good, b=has_base, c=has_base)
    gathering.run(5.0)
    assert [(event.state, round(event.fraction, 2)) for event in gathering.told if event.site == "a"] == [
        ("accepted", 0.0),
        ("fetching", 0.0),
        ("fetching", 0.33),
        ("fetching", 0.67),
        ("ready", 1.0),
    ]


def test_with_enough_there_it_starts_at_once_where_nobody_is_waited_for(gather):
    assert gather(a=has_base, b=has_base, c=silent).run(60.0, wait_for_all=False) == ("a", "b")


def test_when_the_time_is_over_those_that_are_ready_are_enough(gather):
    gathering = gather(a=has_base, b=has_base, c=silent)
    assert gathering.run(0.05) == ("a", "b")
    assert gathering.transport.count("c", "PlanOffer") > 1


def test_a_site_that_waits_for_a_person_is_asked_again_and_comes(gather):
    offers = []

    def later(sites, site, message):
        if isinstance(message, PlanOffer):
            offers.append(site)
            return PlanAnswer(
                sites.digest, site, *(("waiting", ("not-approved",)) if len(offers) < 3 else ("accepted", ()))
            )
        return has_base(sites, site, message)

    assert gather(a=has_base, b=has_base, c=later).run(5.0) == ("a", "b", "c")


def test_with_too_few_when_the_time_is_over_every_reason_is_named(gather):
    gathering = gather(a=has_base, b=answers("waiting", "not-approved"), c=silent)
    with pytest.raises(TooFewSitesError) as few:
        gathering.run(0.02)
    assert few.value.message == (
        "0 sites are ready, and the plan needs 2: a: accepted; "
        "b: waiting, nobody at this site has approved the plan yet; c: no answer yet"
    )


def test_nobody_makes_ready_before_enough_have_accepted(gather):
    """A hospital's budget is set aside when it makes ready, and does not come back."""
    gathering = gather(a=has_base, b=answers("waiting", "not-approved"), c=silent)
    with pytest.raises(TooFewSitesError):
        gathering.run(0.02)
    assert gathering.transport.count("a", "PlanOffer") > 1
    assert gathering.transport.count("a", "BaseQuery") == 0
    assert gathering.states["a"].state == "accepted"


@pytest.mark.parametrize("state", ["accepted", "not-ready", "fetching"])
def test_a_site_that_once_got_further_and_is_gone_does_not_count(gather, monkeypatch, state):
    """Site a agrees, and perhaps b, so that a begins to make ready; then a is gone, and b takes its yes back."""
    monkeypatch.setattr(server.gathering, "_SLICE_SECONDS", 0.01)
    asked = {"a": 0, "b": 0, "c": 0}

    def a(sites, site, message):
        asked["a"] += 1
        if asked["a"] == 1:
            return PlanAnswer(sites.digest, site, "accepted", ())
        return Refusal(sites.digest, 0, site, "not-ready") if state == "not-ready" and asked["a"] == 2 else None

    def b(sites, site, message):
        asked["b"] += 1
        if isinstance(message, PlanOffer):
            agrees = asked["b"] == 1 and state != "accepted"
            return PlanAnswer(sites.digest, site, "accepted" if agrees else "refused", ())
        return Refusal(sites.digest, 0, site, "not-taking-part")

    def c(sites, site, message):
        asked["c"] += 1
        return has_base(sites, site, message) if asked["c"] > 5 else None

    gathering = gather(enough=2, a=a, b=b, c=c)
    with pytest.raises(TooFewSitesError):
        gathering.run(0.3)
    assert asked["c"] > 6
    assert gathering.transport.count("c", "BaseQuery") == 0


def test_looks_become_rarer(gather, monkeypatch):
    clock, pauses = [0.0], []

    def sleep(seconds):
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(server.gathering.time, "sleep", sleep)
    monkeypatch.setattr(server.gathering.time, "monotonic", lambda: clock[0])
    with pytest.raises(TooFewSitesError):
        gather(a=has_base, b=silent, c=silent).run(86_400.0)
    assert pauses == sorted(pauses[:-1]) + pauses[-1:]
    assert (pauses[0], max(pauses)) == (0.001, 30.0)
    assert len(pauses) < 3500


def test_when_too_many_refused_nobody_waits(gather):
    refuses = answers("refused", "epsilon-too-high")
    started = time.monotonic()
    with pytest.raises(TooFewSitesError, match="b: refused, the run costs more"):
        gather(a=has_base, b=refuses, c=refuses).run(60.0)
    assert time.monotonic() - started < 5


def test_a_refusal_of_the_query_is_the_sites_state_and_it_is_offered_the_plan_again(gather):
    def unfit(sites, site, message):
        return (
            good(sites, site, message)
            if isinstance(message, PlanOffer)
            else Refusal(sites.digest, 0, site, "not-ready")
        )

    gathering = gather(a=has_base, b=has_base, c=unfit)
    assert gathering.run(0.05) == ("a", "b")
    assert gathering.states["c"].codes == ("not-ready",)
    assert gathering.transport.count("c", "PlanOffer") > 1


# --- somebody is not -------------------------------------------------------------------------------------------------


def test_a_site_that_asks_for_chunks_without_end_gets_a_few_copies_and_holds_up_nobody(gather):
    gathering = gather(a=good, b=good, c=greedy)
    assert gathering.run(1.0) == ("a", "b")
    greedily = [site for site, _ in gathering.store.read if site == "c"]
    assert len(greedily) == 4 * CHUNKS + 100
    assert gathering.states["c"].codes == ("malformed",)


def test_chunks_without_end_do_not_outlast_the_time(gather, monkeypatch):
    monkeypatch.setattr(server.gathering, "_SPARE", 10**9)
    started = time.monotonic()
    assert gather(a=good, b=good, c=greedy).run(0.3) == ("a", "b")
    assert time.monotonic() - started < 5


def test_while_one_fetches_the_others_are_still_asked(gather, monkeypatch):
    monkeypatch.setattr(server.gathering, "_SPARE", 10**9)
    monkeypatch.setattr(server.gathering, "_SLICE_SECONDS", 0.02)
    started = time.monotonic()

    def later(sites, site, message):
        return None if time.monotonic() - started < 0.1 else has_base(sites, site, message)

    assert gather(a=has_base, b=later, c=greedy).run(30.0, wait_for_all=False) == ("a", "b")
    assert time.monotonic() - started < 10


def test_a_site_that_is_late_once_is_asked_what_it_lacks_and_goes_on(gather):
    said = []

    def sleepy(sites, site, message):
        said.append(message)
        return None if len(said) == 4 else good(sites, site, message)

    gathering = gather(a=has_base, b=has_base, c=sleepy)
    assert gathering.run(5.0) == ("a", "b", "c")
    assert gathering.transport.count("c", "BaseQuery") == 2


@pytest.mark.parametrize(("file", "chunk"), [(2, 1), (1, CHUNKS + 1), (2**31 - 1, 2**31 - 1), (1, 0), (0, 0)])
def test_a_chunk_that_does_not_exist_is_that_sites_fault_alone(gather, file, chunk):
    def odd(sites, site, message):
        return (
            good(sites, site, message) if isinstance(message, PlanOffer) else need(sites, site, "lacking", file, chunk)
        )

    gathering = gather(a=good, b=good, c=odd)
    assert gathering.run(0.05) == ("a", "b")
    assert gathering.states["c"].codes == ("malformed",)


def test_the_coordinators_own_damaged_base_ends_the_gathering(gather):
    gathering = gather(a=good, b=good, c=good)
    gathering.store.error = IntegrityError("the file was changed")
    with pytest.raises(IntegrityError, match="the file was changed"):
        gathering.run(5.0)


def evil_frames(digest):
    yield b""
    yield b"CLSR"
    yield bytes(100)
    yield encode(RunNoted(digest, "c"))
    yield encode(PlanAnswer("0" * 64, "c", "accepted", ()))
    yield encode(PlanAnswer(digest, "a", "accepted", ()))
    yield encode(BaseNeed(digest, "a", "complete", 0, 0))
    yield encode(PlanAnswer(digest, "c", "accepted", ()))[:-1]
    yield encode(Refusal(digest, 0, "b", "not-ready"))


def test_no_frame_raises_or_speaks_for_another(gather, signed):
    for frame in evil_frames(signed.digest):
        gathering = gather(a=has_base, b=has_base, c=lambda *_, frame=frame: frame)
        assert gathering.run(0.02) == ("a", "b")
        assert gathering.states["c"].state == "silent"


def test_an_answer_under_a_name_that_was_not_asked_counts_for_nobody(gather, signed):
    class Strange(Sites):
        def exchange(self, orders):
            yield "stranger", encode(PlanAnswer(signed.digest, "stranger", "accepted", ()))
            yield from super().exchange(orders)

    gathering = gather(a=has_base, b=has_base, c=has_base)
    gathering._transport = Strange(signed.digest, a=has_base, b=has_base, c=has_base)
    assert gathering.run(5.0) == ("a", "b", "c")
    assert set(gathering.states) == {"a", "b", "c"}


def test_the_first_answer_of_a_site_counts(gather):
    def twice(sites, site, message):
        if isinstance(message, PlanOffer):
            return [
                PlanAnswer(sites.digest, site, "accepted", ()),
                PlanAnswer(sites.digest, site, "refused", ("other-base",)),
            ]
        return need(sites, site, "complete")

    assert gather(a=twice, b=twice, c=twice).run(5.0) == ("a", "b", "c")


def test_a_site_that_changes_its_mind_all_the_time_is_told_of_so_often_and_no_more(gather, monkeypatch):
    monkeypatch.setattr(server.gathering, "_SPARE", 5)
    turn = []

    def flips(sites, site, message):
        turn.append(site)
        return PlanAnswer(sites.digest, site, "refused", (f"code-{len(turn)}",))

    gathering = gather(a=has_base, b=has_base, c=flips)
    gathering.run(0.2)
    assert len(turn) > 30
    assert len([event for event in gathering.told if event.site == "c"]) == 4 * CHUNKS + 5


def test_a_network_that_fails_ends_the_gathering_with_its_own_error(gather):
    class Broken:
        def exchange(self, orders):
            raise TransportError("nobody is reached")

    gathering = gather(a=good, b=good, c=good)
    gathering._transport = Broken()
    with pytest.raises(TransportError, match="nobody is reached"):
        gathering.run(5.0)


# --- the end ---------------------------------------------------------------------------------------------------------


def test_all_are_told_of_the_end_and_no_answer_raises(signed):
    frames = [RunNoted(signed.digest, "a"), b"nonsense", None]
    transport = Sites(signed.digest, **{name: lambda *_, f=f: f for name, f in zip("abc", frames, strict=True)})
    dismiss(signed, transport, "finished", signed.plan.roster)
    assert transport.asked == [(site, "RunOver") for site in "abc"]
