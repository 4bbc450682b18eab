import re
from typing import get_args

from common.fields import RefusalCode
from common.reasons import POLICY_WORDS, REFUSAL_WORDS, PolicyCode, in_words


def test_every_code_has_words() -> None:
    assert set(POLICY_WORDS) == set(get_args(PolicyCode))
    assert set(REFUSAL_WORDS) == set(get_args(RefusalCode))


def test_words_show_no_number() -> None:
    # A limit's value would tell the coordinator how far it may go.
    words = [*POLICY_WORDS.values(), *REFUSAL_WORDS.values()]
    assert not [text for text in words if re.search(r"\d", text)]
    assert len(set(words)) == len(words)


def test_a_code_of_a_newer_version_is_shown_as_it_is() -> None:
    assert in_words("not-approved") == "nobody at this site has approved the plan yet"
    assert in_words("over-budget") == "the site's privacy budget does not cover the run"
    assert "(over-moon)" in in_words("over-moon")


def test_policy_codes_fit_the_wire() -> None:
    assert all(re.fullmatch(r"[a-z0-9-]{1,40}", code) for code in get_args(PolicyCode))
