import json
from datetime import timedelta

import pytest

import client.approvals
from client.approvals import approval_state, approve, check_approvals, read_approval, withdraw
from common.documents import document_bytes
from common.errors import ConfigError, IntegrityError, UsageError
from tests.enrolment_play import NOW, make_site

PLAN, OTHER = "a" * 64, "b" * 64
LATER = "2027-11-05T09:30:01Z"
UNTIL = NOW + timedelta(days=9)


@pytest.fixture
def home(tmp_path):
    return make_site(tmp_path)


def test_without_an_approval_there_is_none(home):
    assert read_approval(home, PLAN) is None


def test_an_approval_is_for_one_plan_and_says_who_gave_it(home):
    made = approve(home, PLAN, "Dr. A", UNTIL, NOW)
    assert read_approval(home, PLAN) == made
    assert (made.digest, made.by, made.approved) == (PLAN, "Dr. A", NOW)
    assert read_approval(home, OTHER) is None
    assert home.approval(PLAN).stat().st_mode & 0o777 == 0o600


def test_approving_again_changes_nothing(home):
    approve(home, PLAN, "Dr. A", UNTIL, NOW)
    before = home.approval(PLAN).read_bytes()
    assert approve(home, PLAN, "Dr. B", UNTIL).by == "Dr. A"
    assert home.approval(PLAN).read_bytes() == before


def test_an_approval_ends_with_the_plan_that_the_person_was_shown(home):
    made = approve(home, PLAN, "Dr. A", UNTIL, NOW)
    assert made.holds_at(UNTIL)
    assert not made.holds_at(UNTIL + timedelta(seconds=1))
    longer = approve(home, PLAN, "Dr. B", UNTIL + timedelta(days=300), NOW)
    assert read_approval(home, PLAN) == longer
    assert (longer.by, longer.valid_until) == ("Dr. B", UNTIL + timedelta(days=300))


def test_an_approval_copied_to_another_plan_or_from_another_site_is_none(home, tmp_path):
    approve(home, PLAN, "Dr. A", UNTIL, NOW)
    home.approval(OTHER).write_bytes(home.approval(PLAN).read_bytes())
    assert read_approval(home, OTHER) is None
    south = make_site(tmp_path, "south")
    south.approval(PLAN).write_bytes(home.approval(PLAN).read_bytes())
    assert read_approval(south, PLAN) is None
    assert approve(south, PLAN, "Dr. B", UNTIL).by == "Dr. B"


@pytest.mark.parametrize("field", ["digest", "by", "approved", "valid_until", "site_public", "signature"])
def test_a_changed_approval_is_an_error_and_never_a_yes(home, field):
    made = approve(home, PLAN, "Dr. A", UNTIL, NOW)
    fields = json.loads(document_bytes(made))
    changed = {"digest": OTHER, "by": "Dr. B", "approved": LATER, "valid_until": LATER}.get(field, fields[field][::-1])
    home.approval(PLAN).write_text(json.dumps({**fields, field: changed}, sort_keys=True, separators=(",", ":")))
    for attempt in (lambda: read_approval(home, PLAN), lambda: approve(home, PLAN, "Dr. C", UNTIL)):
        with pytest.raises(IntegrityError, match="plan approval") as error:
            attempt()
        assert "Dr." not in error.value.message


@pytest.mark.parametrize("content", [b"", b"{}", b"x" * (1 << 15)])
def test_a_file_that_is_no_approval_is_an_error(home, content):
    home.approval(PLAN).write_bytes(content)
    with pytest.raises(IntegrityError):
        read_approval(home, PLAN)


@pytest.mark.parametrize("by", ["", "x" * 65, "a\nb", "{}"])
def test_a_name_that_is_none_writes_nothing(home, by):
    with pytest.raises(ConfigError, match="plan approval cannot be made"):
        approve(home, PLAN, by, UNTIL)
    assert read_approval(home, PLAN) is None


def test_an_approval_that_was_taken_back_is_gone_for_good(home, monkeypatch):
    synced = []
    monkeypatch.setattr(client.approvals, "sync_folder", synced.append)
    approve(home, PLAN, "Dr. A", UNTIL, NOW)
    withdraw(home, PLAN)
    assert read_approval(home, PLAN) is None
    assert synced == [home.approvals], "a power cut must not bring it back"
    with pytest.raises(UsageError, match="is not approved here"):
        withdraw(home, PLAN)


def test_one_that_is_taken_back_while_it_is_read_is_none(home, monkeypatch):
    approve(home, PLAN, "Dr. A", UNTIL, NOW)
    real = client.approvals.read_document_file

    def read(*args):
        home.approval(PLAN).unlink(missing_ok=True)
        return real(*args)

    monkeypatch.setattr(client.approvals, "read_document_file", read)
    assert read_approval(home, PLAN) is None


def test_a_folder_in_its_place_is_an_error(home):
    home.approval(PLAN).mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_approval(home, PLAN)


def test_one_that_was_changed_among_many_is_found(home):
    for digest in (PLAN, OTHER):
        approve(home, digest, "Dr. A", UNTIL, NOW)
    check_approvals(home)
    home.approval(OTHER).write_bytes(home.approval(OTHER).read_bytes().replace(b"Dr. A", b"Dr. B"))
    with pytest.raises(IntegrityError, match="plan approval") as error:
        check_approvals(home)
    assert f"cloister-site withdraw {OTHER[:12]}" in error.value.hint
    states = [approval_state(home, digest) for digest in (PLAN, OTHER, "c" * 64)]
    assert states == ["approved", "damaged", "missing"]
