import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.envelope import Envelope, open_envelope
from common.errors import ConfigError, IntegrityError, TransportError
from common.messages import RoundOrder
from common.wire import decode
from server.envelopes import SealedTransport
from server.sequences import BLOCK, Sequences
from tests.vectors.envelope.make import FEDERATION, ORDER, REFUSAL, REQUEST, name_of, public, reply, secret
from tests.vectors.wire.make import PLAN, SPAN_FIELDS, of_bytes

VECTORS = Path(__file__).parent.parent / "vectors" / "envelope"
INDEX = json.loads((VECTORS / "index.json").read_text(encoding="ascii"))
PUBLICS = {name: public(name) for name in ("north", "south")}
COORDINATOR = Ed25519PrivateKey.from_private_bytes(secret("coordinator"))


def vector(name):
    return bytes.fromhex((VECTORS / name).read_text(encoding="ascii"))


class Wire:
    """A transport that keeps what it is given and brings back what it is told to."""

    def __init__(self) -> None:
        self.sent: list[dict[str, bytes]] = []
        self.answers: list[tuple[str, bytes]] = []

    def exchange(self, orders) -> Iterator[tuple[str, bytes]]:
        self.sent.append(dict(orders))
        yield from self.answers


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def sequences(tmp_path):
    return Sequences(tmp_path / "sequences.json", FEDERATION)


def make_transport(wire, sequences, **options):
    return SealedTransport(wire, COORDINATOR, FEDERATION, PUBLICS, sequences, **options)


@pytest.fixture
def seventh(wire, sequences):
    """The next order to north is the good request 7."""
    for _ in range(6):
        sequences.take([PUBLICS["north"]])
    return make_transport(wire, sequences)


def ask(transport, *sites):
    return list(transport.exchange(dict.fromkeys(sites or ("north",), ORDER)))


def on_disk(tmp_path):
    return json.loads((tmp_path / "sequences.json").read_bytes())["sites"]


# --- orders ----------------------------------------------------------------------------------------------------------


def test_an_order_goes_out_as_the_good_vector(seventh, wire):
    ask(seventh)
    assert wire.sent == [{"north": vector("good-request.hex")}]


def test_each_site_has_its_own_envelope_and_each_exchange_its_own_number(wire, sequences):
    transport = make_transport(wire, sequences)
    for number in (1, 2):
        ask(transport, "north", "south")
        for site, data in wire.sent[-1].items():
            said = open_envelope(data).checked(public("coordinator"))
            keys = {"sender_key": public("coordinator"), "recipient_key": PUBLICS[site]}
            assert said == Envelope(FEDERATION, PLAN, 3, number, 0, "coordinator", site, ORDER, **keys)


def test_an_order_that_names_no_round_is_about_round_zero(wire, sequences):
    list(make_transport(wire, sequences).exchange({"north": of_bytes(4, SPAN_FIELDS)}))
    header = open_envelope(wire.sent[0]["north"]).header
    assert (header["plan_digest"], header["round_number"]) == (PLAN, 0)


def test_numbers_are_on_disk_before_anything_is_sent(wire, sequences, tmp_path):
    class Killed(BaseException):
        pass

    class Cut:
        def exchange(self, orders):
            assert on_disk(tmp_path)[PUBLICS["north"]]["reserved"] == BLOCK
            raise Killed

    transport = make_transport(Cut(), sequences)
    with pytest.raises(Killed):
        ask(transport)


def test_orders_are_sealed_when_they_are_asked_for_and_always_alike(seventh, wire, monkeypatch):
    seen = []

    class Careless:
        def exchange(self, orders):
            seen.append((len(orders), list(orders), orders["north"], orders["north"]))
            return iter(())

    ask(make_transport(Careless(), seventh._sequences))
    assert seen == [(1, ["north"], vector("good-request.hex"), vector("good-request.hex"))]


def test_a_name_that_is_not_enrolled_sends_nothing_and_uses_no_number(wire, sequences, tmp_path):
    with pytest.raises(TransportError, match="site east is not enrolled"):
        ask(make_transport(wire, sequences), "north", "east")
    assert (wire.sent, list(tmp_path.iterdir())) == ([], [])


def test_no_site_may_have_the_coordinators_name(wire, sequences):
    with pytest.raises(ConfigError, match="no site may be called 'coordinator'"):
        SealedTransport(wire, COORDINATOR, FEDERATION, {"coordinator": public("north")}, sequences)


# --- answers ---------------------------------------------------------------------------------------------------------


def test_a_good_answer_comes_out_of_its_envelope(seventh, wire):
    wire.answers = [("north", vector("good-reply.hex"))]
    assert (ask(seventh), seventh.dropped) == ([("north", REFUSAL)], {})


def test_the_same_answer_twice_comes_out_twice(seventh, wire):
    wire.answers = [("north", vector("good-reply.hex"))] * 2
    assert ask(seventh) == [("north", REFUSAL)] * 2


@pytest.mark.parametrize(("name", "kind"), INDEX["dropped"].items())
def test_bad_answers_are_dropped_and_counted_by_kind(seventh, wire, name, kind):
    wire.answers = [("north", vector(name)), ("north", vector("good-reply.hex"))]
    assert ask(seventh) == [("north", REFUSAL)]
    assert seventh.dropped == {kind: 1}


@pytest.mark.parametrize("name", [*INDEX["unreadable"], *INDEX["unsigned"]])
def test_no_answer_whatever_its_bytes_raises(seventh, wire, name):
    wire.answers = [("north", vector(name)), ("nobody", vector(name))]
    assert ask(seventh) == []
    assert seventh.dropped.pop("unknown-site") == 1
    assert sum(seventh.dropped.values()) == 2


def test_a_sites_good_answer_is_not_another_sites(seventh, wire):
    """The label on the channel is the attacker's; the signature is not."""
    wire.answers = [("south", vector("good-reply.hex"))]
    assert ask(seventh, "north", "south") == []
    assert seventh.dropped == {"bad-signature": 1}


def test_a_site_that_was_not_asked_is_not_heard(seventh, wire):
    wire.answers = [("north", vector("good-reply.hex"))]
    assert ask(seventh, "south") == []
    assert seventh.dropped == {"unknown-site": 1}


def test_an_answer_to_an_earlier_exchange_is_late(seventh, wire):
    ask(seventh)
    wire.answers = [("north", vector("good-reply.hex"))]
    assert ask(seventh) == []
    assert seventh.dropped == {"other-sequence": 1}


def test_an_answer_over_the_limit_is_not_looked_at(wire, seventh):
    wire.answers = [("north", vector("good-reply.hex"))]
    assert ask(make_transport(wire, seventh._sequences, limit_bytes=100)) == []


def test_an_order_can_be_decoded_from_what_was_sent(seventh, wire):
    ask(seventh)
    body = open_envelope(wire.sent[0]["north"]).checked(public("coordinator")).body
    assert isinstance(decode(body, RoundOrder), RoundOrder)


# --- memory ----------------------------------------------------------------------------------------------------------


def acknowledged(wire):
    return open_envelope(wire.sent[-1]["north"]).header["acknowledged"]


def test_what_a_site_has_answered_is_on_disk_after_the_exchange_and_in_the_next_order(seventh, wire, tmp_path):
    wire.answers = [("north", vector("good-reply.hex"))]
    ask(seventh)
    assert on_disk(tmp_path)[PUBLICS["north"]]["acknowledged"] == 7
    ask(make_transport(wire, Sequences(tmp_path / "sequences.json", FEDERATION)))
    assert acknowledged(wire) == 7


def test_what_a_site_has_answered_is_on_disk_before_anybody_acts_on_it(seventh, wire, tmp_path):
    """A coordinator that is killed over an answer must say that it had it: that shows an older copy of the site."""
    wire.answers = [("north", vector("good-reply.hex"))]
    next(seventh.exchange({"north": ORDER}))
    assert on_disk(tmp_path)[PUBLICS["north"]]["acknowledged"] == 7


NOT_ITS_WORD = {"unreadable", "bad-signature", "other-federation", "wrong-sender", "wrong-recipient"}


@pytest.mark.parametrize("name", [name for name, kind in INDEX["dropped"].items() if kind in NOT_ITS_WORD])
def test_what_is_not_the_sites_own_word_is_not_acknowledged(seventh, wire, name):
    wire.answers = [("north", vector(name))]
    ask(seventh)
    ask(seventh)
    assert acknowledged(wire) == 0


def test_an_answer_that_is_late_still_says_how_far_the_site_is(seventh, wire):
    ask(seventh)
    wire.answers = [("north", vector("good-reply.hex"))]
    ask(seventh)
    ask(seventh)
    assert acknowledged(wire) == 7


def test_the_word_of_the_site_counts_and_not_the_number_it_answers_to(seventh, wire):
    """A refusal of an order that was led astray has a number that the site never took in."""
    wire.answers = [("north", reply(acknowledged=2))]
    ask(seventh)
    ask(seventh)
    assert acknowledged(wire) == 2


def test_a_site_that_is_ahead_is_asked_with_a_number_that_is_new_to_it(seventh, wire):
    wire.answers = [("north", reply(acknowledged=5000))]
    ask(seventh)
    ask(seventh)
    assert open_envelope(wire.sent[-1]["north"]).header["sequence"] == 5001


def test_an_old_answer_to_a_number_that_is_used_again_is_dropped(wire, sequences):
    """Should a number ever come twice, the name of the order still tells the answers apart."""
    old = name_of({**REQUEST, "sequence": 1, "round_number": 2})
    wire.answers = [("north", reply(sequence=1, answers=old))]
    transport = make_transport(wire, sequences)
    assert ask(transport) == []
    assert transport.dropped == {"other-request": 1}


def test_a_file_of_numbers_that_somebody_else_changed_stops_the_exchange(seventh, wire, tmp_path):
    Sequences(tmp_path / "sequences.json", FEDERATION).take([PUBLICS["north"]])
    wire.answers = [("north", vector("good-reply.hex"))]
    with pytest.raises(IntegrityError, match="was changed by somebody else"):
        ask(seventh)
