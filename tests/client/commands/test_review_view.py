import json
from dataclasses import replace

import pytest

from client.approvals import Approval
from client.commands.review_view import cost_in_words, review_json, share_in_words, state_in_words
from client.review import Review, open_desk
from tests.client.commands.test_plans import reserve
from tests.site_commands import Play


@pytest.fixture
def review(joined: Play) -> Review:
    return open_desk(joined.site).review(joined.sign()[0])


SHARES = {0.0: "0.0 % of", 0.15401: "15.5 % of", 1.0: "100.0 % of", 7025.2: "7,025 times", float("inf"): "more than"}


@pytest.mark.parametrize(("share", "words"), SHARES.items())
def test_shares_are_rounded_against_the_reader_s_hopes(share: float, words: str) -> None:
    assert share_in_words(share) == words


def test_a_cost_that_is_unknown_is_said_to_be(review: Review) -> None:
    assert "ε unknown" in cost_in_words(replace(review, epsilon=None))
    assert "no budget that it could be taken from" in cost_in_words(replace(review, before=None))


def test_a_budget_that_holds_nothing_holds_nothing(review: Review) -> None:
    assert "no budget holds it" in cost_in_words(replace(review, quote=replace(review.quote, share=float("inf"))))


def test_what_is_paid_for_is_said_to_be(joined: Play) -> None:
    signed = joined.approved()
    reserve(joined, signed)
    review = open_desk(joined.site).review(signed)
    assert isinstance(review.approval, Approval)
    assert "was set aside for it" in cost_in_words(review)
    assert "under way" in state_in_words(review)
    assert "all rounds charged" in state_in_words(replace(review, last_round=200))
    assert "paid for" in state_in_words(replace(review, last_round=0))


def test_json_has_no_number_that_json_lacks(joined: Play, review: Review) -> None:
    config = open_desk(joined.site).config
    endless = replace(review, epsilon=float("inf"), quote=replace(review.quote, share=float("inf")))
    told = json.loads(json.dumps(review_json(endless, config), allow_nan=False))
    assert told["epsilon"] is None
    assert told["budget_share"] is None
    assert told["digest"] == review.signed.digest
