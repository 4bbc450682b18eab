"""The verdict by itself; tests/client/test_acceptance.py asks it through a site's real files."""

from types import SimpleNamespace
from typing import get_args

import pytest

from client.policy import Reason
from client.verdict import Verdict, _state, find_locally
from common.reasons import PolicyCode, in_words


def reason(code):
    return Reason(code, "rule", "asked", "limit", "hint")


WAITING, BROKEN = reason("not-approved"), reason("too-many-rounds")


@pytest.mark.parametrize(
    ("reasons", "over_budget", "state"),
    [
        ((), False, "accepted"),
        ((), True, "refused"),
        ((WAITING,), False, "waiting"),
        ((WAITING,), True, "refused"),
        ((BROKEN,), False, "refused"),
        ((WAITING, BROKEN), False, "refused"),
    ],
)
def test_only_a_missing_approval_is_waited_for(reasons, over_budget, state):
    assert _state(reasons, over_budget) == state


def test_codes_are_known_ones_in_order_and_say_nothing_else():
    reasons = tuple(reason(code) for code in reversed(get_args(PolicyCode)))
    verdict = Verdict("refused", (*reasons, reasons[0]), over_budget=True)
    assert list(verdict.codes) == sorted({*get_args(PolicyCode), "over-budget"})
    assert not any("does not know" in in_words(code) for code in verdict.codes)
    assert Verdict("accepted").codes == ()


def test_where_the_policy_does_not_ask_nothing_is_hashed(monkeypatch):
    monkeypatch.setattr("client.verdict.find_copy", lambda *_: pytest.fail("hashed"))
    config = SimpleNamespace(policy=SimpleNamespace(base_must_be_local=False), base=SimpleNamespace(local=("x",)))
    assert not find_locally(SimpleNamespace(base=None), config)
