"""A hospital that lost its files is enrolled anew, and what was recorded before on the network does not stop it."""

import shutil

import pytest

from common.envelope import LARGEST_STEP, Envelope, seal
from common.identity import public_name
from common.key_files import read_identity
from common.messages import Refusal
from common.study_messages import BaseQuery
from common.wire import decode, encode
from server.enrolment import withdraw
from tests.federation_play import LocalNetwork, make_federation, make_site
from tests.ledger_watch import body_of
from tests.tiny_base import make_tiny_base

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def federation(tmp_path):
    make_tiny_base(tmp_path / "tiny")
    federation = make_federation(tmp_path, tmp_path / "tiny", NAMES)
    yield federation
    federation.close()


def test_recorded_envelopes_do_not_stop_a_site_that_was_enrolled_anew(federation, tmp_path, monkeypatch):
    signed, recorded = federation.sign(), []
    exchange = LocalNetwork.exchange

    def record(network, orders):
        recorded.extend([orders["a"]] if "a" in orders else [])
        return exchange(network, orders)

    with monkeypatch.context() as patch:
        patch.setattr(LocalNetwork, "exchange", record)
        federation.run(signed)
    federation.close()
    withdraw(federation.coordinator, "a")
    shutil.rmtree(tmp_path / "a")
    federation.sites["a"] = make_site(tmp_path / "a", federation.coordinator)
    for request in (recorded[0], recorded[-1]):
        site = federation.open("a").site
        answer = decode(body_of(site.answer(request)), Refusal)
        assert (answer.code, site.fatal, site.inbox.last_sequence) == ("misaddressed", None, 0)


def test_one_envelope_with_the_largest_number_does_not_block_a_site(federation):
    signed, key = federation.sign(), read_identity(federation.coordinator.identity_key)
    site = federation.open("a").site
    keys = {"sender_key": public_name(key), "recipient_key": federation.open("a").pinned.invitation.site_public}
    body = encode(BaseQuery(signed.digest))

    def ask(number):
        envelope = Envelope(signed.federation, signed.digest, 0, number, 0, "coordinator", "a", body, **keys)
        return body_of(site.answer(seal(envelope, key)))

    for number in (2**31 - 1, LARGEST_STEP + 1):
        assert decode(ask(number), Refusal).code == "far-sequence"
    assert decode(ask(1), Refusal).code == "other-plan"  # taken in: no plan was offered yet
    assert (site.fatal, site.inbox.last_sequence) == (None, 1)
