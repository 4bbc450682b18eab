from datetime import timedelta

import pytest

from common.enrolment import write_join_request
from common.errors import ConfigError, IntegrityError, UsageError
from common.signed_plan import write_signed_plan
from server.config import load_coordinator_config
from server.enrolment import enrol, enrolled, withdraw
from server.run_files import SIGNED_PLAN_NAME
from server.signed_plans import (
    enough_sites,
    find_signed_plan,
    issue_plan,
    plan_called,
    prepare_folder,
    signed_plans,
    sites_of,
)
from tests.enrolment_play import NOW, make_coordinator, make_join_request
from tests.plans import make_plan


@pytest.fixture
def home(tmp_path):
    return make_coordinator(tmp_path)


def issue(home, now=NOW, **changes):
    return issue_plan(home, load_coordinator_config(home.config), make_plan(**changes), now)


def test_a_plan_is_found_by_its_digest_its_beginning_and_its_file(home, tmp_path):
    signed = issue(home)
    (tmp_path / "sent").write_bytes(write_signed_plan(signed))
    for text in (signed.digest, signed.digest[:5], str(tmp_path / "sent")):
        assert plan_called(home, text) == signed


def test_signing_again_gives_the_same_bytes_while_they_are_valid(home):
    signed = issue(home)
    assert issue(home, NOW + timedelta(days=3)) == signed
    later = issue(home, NOW + timedelta(days=91))
    assert later.digest == signed.digest
    assert later.valid_until > signed.valid_until
    assert find_signed_plan(home, signed.digest) == later


def test_plans_come_in_the_order_they_were_signed(home):
    second, first = issue(home, NOW, rounds=3), issue(home, NOW - timedelta(days=1))
    assert signed_plans(home) == (first, second)


@pytest.mark.parametrize("text", ["", "*", "../keys", "g", "0" * 65, "[0-9a-f]"])
def test_what_is_no_beginning_of_a_digest_finds_nothing(home, text):
    issue(home)
    with pytest.raises(UsageError, match="no signed plan"):
        find_signed_plan(home, text)


def test_a_beginning_of_two_is_refused(home):
    digests = [issue(home, rounds=rounds).digest for rounds in range(1, 18)]  # 17 digests, 16 first letters
    first = next(digest[0] for digest in digests if sum(other[0] == digest[0] for other in digests) > 1)
    with pytest.raises(UsageError, match="more than one"):
        find_signed_plan(home, first)


def test_a_plan_of_another_coordinator_is_refused(home, tmp_path):
    other = make_coordinator(tmp_path / "other")
    signed = issue(other)
    home.plan(signed.digest).write_bytes(write_signed_plan(signed))
    with pytest.raises(IntegrityError, match="another coordinator"):
        find_signed_plan(home, signed.digest)
    with pytest.raises(IntegrityError, match="another coordinator"):
        signed_plans(home)


def test_enough_sites_is_the_strictest_of_both_rules():
    masked = {"masked": True, "tolerated_dropouts": 1}
    roster = {name: name * 64 for name in "abcde2"}
    for least, secagg, expected in ((1, masked, 5), (2, {"masked": False}, 2), (6, masked, 6)):
        plan = make_plan(sites=6, roster=roster, minimum_sites=least, secure_aggregation=secagg)
        signed = type("Signed", (), {"plan": plan})
        assert enough_sites(signed) == expected


def test_a_roster_must_be_enrolled_with_its_keys(home):
    enrol(home, write_join_request(make_join_request("north")))
    signed = issue(home, sites=1, roster={"north": enrolled(home)[0].public})
    assert [site.name for site in sites_of(home, signed)] == ["north"]
    withdraw(home, "north")
    with pytest.raises(ConfigError, match="north"):
        sites_of(home, signed)
    enrol(home, write_join_request(make_join_request("north")))  # the name, with another key
    with pytest.raises(ConfigError, match="north"):
        sites_of(home, signed)


def test_a_folder_with_finished_rounds_is_for_resuming(home):
    signed = issue(home)
    folder = prepare_folder(home, signed, resume=False)
    assert prepare_folder(home, signed, resume=False) == folder
    (folder / "checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="already holds finished rounds"):
        prepare_folder(home, signed, resume=False)
    assert prepare_folder(home, signed, resume=True) == folder


def test_a_folder_of_another_plan_is_never_used(home):
    signed, other = issue(home), issue(home, rounds=3)
    folder = prepare_folder(home, signed, resume=False)
    (folder / SIGNED_PLAN_NAME).write_bytes(write_signed_plan(other))
    with pytest.raises(IntegrityError, match="belongs to another plan"):
        prepare_folder(home, signed, resume=True)


def test_a_draft_is_told_from_a_signed_plan(home, tmp_path):
    draft = tmp_path / "study.toml"
    draft.write_text('name = "study"\n')
    with pytest.raises(UsageError, match="is a draft") as caught:
        plan_called(home, str(draft))
    assert "plan check" in caught.value.hint
    assert "--sign" in caught.value.hint


@pytest.mark.parametrize("text", ["reactions.plan", "plans/3f2a.json", "", "3F2A", "f" * 65])
def test_what_is_no_digest_is_told_as_a_file_that_is_not_there(home, text):
    with pytest.raises(UsageError) as caught:
        plan_called(home, text)
    told = f"there is no file {text[:64]!r}, and no signed plan has a digest that begins so"
    assert (caught.value.message, "plan list" in caught.value.hint) == (told, True)
