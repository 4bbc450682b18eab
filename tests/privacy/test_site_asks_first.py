"""Nothing is done for a plan before policy, approval and ledger have said yes to it, and nothing after they say no."""

import pytest

from client.approvals import approve, withdraw
from common.audit_events import MessageRepeated, Refused, Reserved
from common.errors import BudgetError
from common.messages import RoundReply
from common.study_messages import BaseQuery, RunOver
from tests.site_play import Opener, chunks, code, hand_out, make_site_play, order, ready


@pytest.fixture
def play(tmp_path):
    play = make_site_play(tmp_path)
    yield play
    play.close()


@pytest.fixture
def opener(play):
    opener = Opener(play)
    play.site.open_node = opener
    return opener


@pytest.fixture
def signed(play):
    return play.federation.sign()


def test_an_approval_that_is_taken_back_ends_it_at_the_next_request(play, opener, signed):
    ready(play, signed)
    withdraw(play.home, signed.digest)
    for message in (BaseQuery(signed.digest), order(signed), next(chunks(play, signed))):
        assert code(play.ask(message)) == "not-taking-part"
    approve(play.home, signed.digest, "tester", signed.valid_until)
    assert isinstance(play.ask(order(signed)), RoundReply)


def test_a_kept_answer_stays_here_once_the_approval_was_taken_back(play, opener, signed):
    """As after a kill before the answer was sent: the coordinator asks again, and a person has said no meanwhile."""
    ready(play, signed)
    request = play.request(order(signed))
    kept = play.site.answer(request)
    withdraw(play.home, signed.digest)
    assert play.site.answer(request) is None
    assert play.told(MessageRepeated) == []
    assert play.told(Refused)[-1].codes == ("not-approved",)
    approve(play.home, signed.digest, "tester", signed.valid_until)
    assert play.site.answer(request) == kept


def test_what_says_nothing_about_records_is_repeated_in_any_case(play, opener, signed):
    play.offer(signed)
    withdraw(play.home, signed.digest)
    for message in (order(signed), RunOver(signed.digest, "stopped")):
        request = play.request(message)
        assert play.site.answer(request) == play.site.answer(request) is not None


def test_without_an_approval_nothing_of_the_base_is_taken_in(play, opener):
    signed = play.federation.sign(approved=False)
    play.offer(signed)
    assert code(hand_out(play, signed)) == "not-taking-part"
    assert not any(play.home.bases.iterdir())
    assert opener.happened == []


def test_the_policy_is_asked_with_the_trained_values_before_a_record_is_read(play, opener, signed):
    play.close()
    text = play.home.config.read_text()
    play.home.config.write_text(text.replace("[policy]", "[policy]\nmost_trained_values = 29"))
    play.site.open_node = opener
    play.offer(signed)
    assert code(hand_out(play, signed)) == "not-taking-part"
    assert opener.happened == ["base"]
    assert play.told(Reserved) == [], "a plan that is refused costs nothing"
    assert play.told(Refused)[-2].codes == ("too-many-trained-values",)
    opener.values = 29
    assert isinstance(play.ask(order(signed)), RoundReply)


def test_a_budget_that_another_run_took_meanwhile_is_a_refusal(play, opener, signed, monkeypatch):
    def spent(*_):
        raise BudgetError("nothing is left")

    play.offer(signed)
    monkeypatch.setattr(type(play.site.acceptance), "reserve", spent)
    assert code(hand_out(play, signed)) == "not-taking-part"
    assert opener.happened == ["base"]
