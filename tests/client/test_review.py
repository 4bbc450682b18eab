from pathlib import Path

import pytest

from client.review import open_desk, read_plan_file
from common.errors import ConfigError, NotApprovedError, UsageError
from common.privacy.accountant import epsilon
from common.privacy.mechanism import mechanism_of
from tests.client.commands.test_plans import ledger, reserve
from tests.site_commands import Play


@pytest.fixture
def joined(tmp_path: Path) -> Play:
    return Play(tmp_path).join()


def test_the_costs_are_those_of_accountant_and_ledger(joined: Play) -> None:
    signed, _ = joined.sign()
    review = open_desk(joined.site).review(signed)
    assert review.epsilon == epsilon(mechanism_of(signed.plan))
    assert review.verdict.state == "waiting"
    with ledger(joined) as books:
        assert review.before == books.balance("records", "patient")
        plan = signed.plan
        books.reserve(signed.digest, plan.name, signed.coordinator, "records", mechanism_of(plan), plan.rounds)
        assert review.after == books.balance("records", "patient")


def test_what_is_paid_for_costs_nothing_more(joined: Play) -> None:
    signed, _ = joined.sign()
    reserve(joined, signed)
    review = open_desk(joined.site).review(signed)
    assert review.reserved
    assert review.after == review.before
    assert review.last_round == 7


def test_a_plan_without_noise_has_no_cost_that_fits(joined: Play) -> None:
    signed, _ = joined.sign(privacy={"noise_multiplier": 0.0})
    review = open_desk(joined.site).review(signed)
    assert review.verdict.state == "refused"
    assert review.quote is None or not review.quote.fits


def test_a_plan_from_before_a_recovery_is_refused_even_with_room(joined: Play) -> None:
    signed = joined.approved()
    reserve(joined, signed)
    assert joined("recover", "--reason", "the disk was replaced", "--yes").code == 0
    with joined.site.config.open("a") as config:
        config.write("\n[budget.patient]\nepsilon = 100.0\n")
    text = joined.site.config.read_text().replace("[budget.patient]\n# epsilon = 10.0\n# delta = 1e-5\n", "", 1)
    joined.site.config.write_text(text)
    review = open_desk(joined.site).review(signed)
    assert review.quote.fits
    assert review.verdict.state == "refused"


def test_a_digest_may_be_cut_short_but_must_be_one_plan_s(joined: Play) -> None:
    signed, path = joined.sign()
    joined("review", path)
    desk = open_desk(joined.site)
    assert desk.find(signed.digest[:4]) == desk.find(signed.digest) == signed
    twin = signed.digest[:4] + "0" * 60
    joined.site.plan(twin).write_bytes(b"")
    with pytest.raises(UsageError, match="2 plans"):
        desk.find(signed.digest[:4])


@pytest.mark.parametrize("digest", ["", "abc", "*", "../../keys/identity", "[a-f]*", "A" * 64, "0" * 65])
def test_what_is_no_digest_finds_nothing(joined: Play, digest: str) -> None:
    joined("review", joined.sign()[1])
    with pytest.raises(NotApprovedError):
        open_desk(joined.site).find(digest)


def test_plans_come_newest_first(joined: Play) -> None:
    names = ("first", "second")
    for name in names:
        joined("review", joined.sign(name=name)[1])
    assert {signed.plan.name for signed in open_desk(joined.site).plans()} == set(names)


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    assert len(read_plan_file(Path("/dev/zero"))) == (1 << 20) + 1
    with pytest.raises(ConfigError):
        read_plan_file(Path("nowhere"))
