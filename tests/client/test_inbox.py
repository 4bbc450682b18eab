import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.inbox import ForgottenAnswersError, Inbox, NotFromCoordinatorError, UnfitEnvelopeError
from common.envelope import LARGEST_STEP, Envelope, open_envelope
from common.errors import ConfigError, IntegrityError, RefusedError, RollbackError
from common.identity import new_identity
from tests.vectors.envelope.make import FEDERATION, ORDER, OTHER, REFUSAL, envelope, public, reply, secret
from tests.vectors.wire.make import PLAN

VECTORS = Path(__file__).parent.parent / "vectors" / "envelope"
INDEX = json.loads((VECTORS / "index.json").read_text(encoding="ascii"))

OUT = {"sender_key": public("coordinator"), "recipient_key": public("north")}


def vector(name):
    return bytes.fromhex((VECTORS / name).read_text(encoding="ascii"))


def make_inbox(folder, federation=FEDERATION, site="north", coordinator="coordinator", **options):
    identity = Ed25519PrivateKey.from_private_bytes(secret(site))
    return Inbox(folder / "inbox.record", federation, site, identity, public(coordinator), **options)


def reopened(folder):
    return make_inbox(folder, must_exist=True)


@pytest.fixture
def inbox(tmp_path):
    return make_inbox(tmp_path)


@pytest.fixture
def answered(inbox):
    """North has answered the good request 7."""
    inbox.reply(inbox.open(envelope()), REFUSAL)
    return inbox


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def standing(inbox):
    return inbox.last_sequence, inbox.answered


# --- the ordinary course ---------------------------------------------------------------------------------------------


def test_a_request_is_opened_and_on_disk_before_it_returns(inbox, tmp_path):
    opened = inbox.open(vector("good-request.hex"))
    assert opened.envelope == Envelope(FEDERATION, PLAN, 3, 7, 0, "coordinator", "north", ORDER, **OUT)
    assert (opened.digest, opened.kept) == (opened.envelope.digest, None)
    assert standing(inbox) == standing(reopened(tmp_path)) == (7, 0)


def test_the_reply_is_the_vector_and_on_disk_before_it_returns(inbox, tmp_path):
    sealed = inbox.reply(inbox.open(vector("good-request.hex")), REFUSAL)
    assert sealed == vector("good-reply.hex")
    for again in (inbox, reopened(tmp_path)):
        assert standing(again) == (7, 7)
        assert again.open(vector("good-request.hex")).kept == sealed


def test_a_repeat_before_the_reply_is_handled_afresh_over_restarts(inbox, tmp_path):
    for reopen in (False, False, True, True):
        again = reopened(tmp_path) if reopen else inbox
        opened = again.open(envelope())
        assert (opened.kept, standing(again)) == (None, (7, 0))
    again.reply(opened, REFUSAL)
    assert reopened(tmp_path).open(envelope()).kept == vector("good-reply.hex")


def test_a_new_request_is_the_last_one_and_the_one_before_is_past(answered):
    opened = answered.open(envelope(sequence=20, acknowledged=7))
    assert (opened.kept, standing(answered)) == (None, (20, 7))
    with pytest.raises(UnfitEnvelopeError, match="request 7 comes after request 20"):
        answered.open(envelope())


def test_a_large_request_and_reply_come_through(inbox):
    body = bytes(3 << 20)
    opened = inbox.open(envelope(body=body))
    assert opened.envelope.body == body
    assert open_envelope(inbox.reply(opened, body)).body == body


# --- what gets no answer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*INDEX["unreadable"], *INDEX["unsigned"]])
def test_what_the_pinned_coordinator_did_not_sign_is_not_answered_and_changes_nothing(answered, tmp_path, name):
    before = files(tmp_path)
    with pytest.raises(NotFromCoordinatorError) as error:
        answered.open(vector(name))
    # There is nothing in it that a refusal could be sealed from.
    assert not isinstance(error.value, Inbox.REFUSALS)
    assert not hasattr(error.value, "opened")
    assert (files(tmp_path), error.value.exit_code) == (before, 13)


def test_a_coordinator_that_is_not_pinned_gets_no_answer(tmp_path):
    inbox = make_inbox(tmp_path, coordinator="another coordinator")
    with pytest.raises(NotFromCoordinatorError, match="is not signed by the key that is expected"):
        inbox.open(envelope())
    theirs = envelope("another coordinator", sender_key=public("another coordinator"))
    assert inbox.open(theirs).envelope.sequence == 7


def test_a_request_over_the_limit_is_not_looked_at(inbox):
    with pytest.raises(NotFromCoordinatorError, match="and may have 100"):
        inbox.open(envelope(), limit_bytes=100)
    assert standing(inbox) == (0, 0)


# --- what is refused with a code -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "code"), INDEX["refused"].items())
def test_bad_requests_are_refused_with_their_code_and_change_nothing(answered, tmp_path, name, code):
    before = files(tmp_path)
    with pytest.raises(Inbox.REFUSALS) as error:
        answered.open(vector(name))
    assert error.value.code == code
    assert error.value.exit_code == (14 if code == "rolled-back" else 13)
    assert (files(tmp_path), standing(answered)) == (before, (7, 7))


@pytest.mark.parametrize("name", INDEX["refused"])
def test_a_refusal_is_signed_names_its_request_and_says_how_far_the_site_is(answered, tmp_path, name):
    before = files(tmp_path)
    with pytest.raises(Inbox.REFUSALS) as error:
        answered.open(vector(name))
    request = open_envelope(vector(name)).checked(public("coordinator"))
    said = open_envelope(answered.refuse(error.value, REFUSAL)).checked(public("north"))
    assert said == Envelope(
        FEDERATION, request.plan_digest, request.round_number, request.sequence, 7, "north", "coordinator",
        REFUSAL, request.digest, sender_key=public("north"), recipient_key=public("coordinator"),
    )  # fmt: skip
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, {"site": "north"}),
        ({"recipient": "south", "recipient_key": public("south")}, {"site": "south"}),
        ({"federation": OTHER}, {"federation": OTHER}),
    ],
)
def test_a_request_that_is_misaddressed_here_is_right_elsewhere(tmp_path, changes, fits):
    """What refuses the vectors is the address, and nothing else about them."""
    assert make_inbox(tmp_path, **fits).open(envelope(**changes)).kept is None


def test_the_largest_step_is_taken_and_none_beyond_it(answered):
    with pytest.raises(UnfitEnvelopeError, match="is 1048577 beyond the last one and may be 1048576"):
        answered.open(envelope(sequence=8 + LARGEST_STEP))
    assert answered.open(envelope(sequence=7 + LARGEST_STEP)).kept is None


def test_what_was_recorded_before_a_site_was_enrolled_anew_is_not_for_it(tmp_path):
    """The name is the same, and so are federation and coordinator: it is neither answered from, nor a rollback."""
    anew = Inbox(tmp_path / "inbox.record", FEDERATION, "north", new_identity(), public("coordinator"))
    with pytest.raises(UnfitEnvelopeError, match="`recipient_key`") as error:
        anew.open(envelope(sequence=30, acknowledged=29))
    assert (error.value.code, standing(anew)) == ("misaddressed", (0, 0))


def test_no_request_is_taken_from_the_sites_own_replies(answered):
    with pytest.raises(NotFromCoordinatorError):
        answered.open(vector("good-reply.hex"))
    with pytest.raises(UnfitEnvelopeError) as error:
        answered.open(reply("coordinator", sequence=9))
    assert error.value.code == "misaddressed"


def test_replays_and_reorders_are_refused_after_a_restart_too(answered, tmp_path):
    answered.reply(answered.open(envelope(sequence=9, acknowledged=7)), REFUSAL)
    for inbox in (answered, reopened(tmp_path)):
        for sequence in (1, 6, 7, 8):
            with pytest.raises(UnfitEnvelopeError) as error:
                inbox.open(envelope(sequence=sequence))
            assert error.value.code == "past-sequence"
        assert inbox.open(envelope(sequence=9, acknowledged=7)).kept is not None


def test_a_request_that_was_begun_makes_older_ones_past_even_if_it_was_never_answered(inbox, tmp_path):
    inbox.open(envelope(sequence=9))
    with pytest.raises(UnfitEnvelopeError, match="request 8 comes after request 9"):
        reopened(tmp_path).open(envelope(sequence=8))


# --- an older copy of the files --------------------------------------------------------------------------------------


def put_back(folder, copy):
    for path in folder.iterdir():
        path.unlink()
    for name, content in copy.items():
        (folder / name).write_bytes(content)


def test_an_older_copy_is_noticed_by_what_the_coordinator_has_seen(answered, tmp_path):
    copy = files(tmp_path)
    answered.reply(answered.open(envelope(sequence=8, acknowledged=7)), REFUSAL)
    put_back(tmp_path, copy)
    inbox = reopened(tmp_path)
    with pytest.raises(RollbackError, match="has this site's answer 8, and the site remembers none beyond 7") as error:
        inbox.open(envelope(sequence=9, acknowledged=8))
    assert (error.value.exit_code, "never put an older copy" in error.value.hint) == (14, True)
    # It is the witness alone that tells.
    assert inbox.open(envelope(sequence=9, acknowledged=7)).kept is None


def test_a_begun_request_does_not_count_as_answered(inbox):
    inbox.open(envelope(sequence=8))
    with pytest.raises(ForgottenAnswersError):
        inbox.open(envelope(sequence=9, acknowledged=8))


def test_a_fresh_record_of_a_site_that_answered_before_is_noticed(inbox):
    with pytest.raises(RollbackError, match="answer 6, and the site remembers none beyond 0"):
        inbox.open(envelope(acknowledged=6))


# --- one reply to one request ----------------------------------------------------------------------------------------


def test_a_request_is_answered_once(inbox):
    opened = inbox.open(envelope())
    inbox.reply(opened, REFUSAL)
    with pytest.raises(RefusedError, match="this reply is not for it"):
        inbox.reply(opened, ORDER)
    assert inbox.open(envelope()).kept == vector("good-reply.hex")


def test_a_request_that_is_not_the_last_gets_no_reply_any_more(inbox):
    opened = inbox.open(envelope())
    inbox.open(envelope(sequence=8))
    with pytest.raises(RefusedError, match="request 8 is the last one"):
        inbox.reply(opened, REFUSAL)


def test_a_refused_request_gets_no_reply(answered):
    with pytest.raises(UnfitEnvelopeError) as error:
        answered.open(envelope(recipient="south", sequence=8))
    with pytest.raises(RefusedError):
        answered.reply(error.value.opened, REFUSAL)


def test_a_second_process_with_the_record_takes_nothing_in(inbox, tmp_path):
    second = reopened(tmp_path)
    opened = inbox.open(envelope())
    with pytest.raises(IntegrityError, match="changed by somebody else"):
        second.open(envelope(sequence=8))
    third = reopened(tmp_path)
    inbox.reply(opened, REFUSAL)
    with pytest.raises(IntegrityError, match="changed by somebody else"):
        third.reply(opened, ORDER)


def test_no_site_may_have_the_coordinators_name(tmp_path):
    with pytest.raises(ConfigError, match="no site may be called 'coordinator'"):
        make_inbox(tmp_path, site="coordinator")
    assert files(tmp_path) == {}
