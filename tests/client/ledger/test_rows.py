from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from client.ledger.rows import KINDS, NOTHING_BEFORE, Committed, Opened, Recovered, check_chain, new_row, own_meaning
from common.canonical import canonical_bytes
from common.errors import IntegrityError
from common.identity import is_signed_by, new_identity, public_name
from tests.client.ledger_site import HOST, ORDER, PLAN

IDENTITY = new_identity()
PUBLIC = public_name(IDENTITY)
NOW = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
OPENED = Opened(ledger="0" * 64, site=PUBLIC, host=HOST)
COMMITTED = Committed(plan_digest=PLAN, round_number=3, order_digest=ORDER)


@pytest.fixture
def rows():
    chain = [new_row(None, OPENED, NOW, IDENTITY)]
    for number in range(1, 5):
        chain.append(new_row(chain[-1], COMMITTED.model_copy(update={"round_number": number}), NOW, IDENTITY))
    return chain


def test_an_entry_says_all_that_it_must(rows):
    first, second = rows[:2]
    assert (first.sequence, first.kind, first.previous) == (1, "opened", NOTHING_BEFORE)
    assert (second.sequence, second.kind, second.previous) == (2, "commit", first.hash)
    assert second.time == "2026-11-01T12:30:00.000000+00:00"
    assert second.when == NOW
    assert second.content == f'{{"order_digest":"{ORDER}","plan_digest":"{PLAN}","round_number":1}}'
    assert second.meaning == COMMITTED.model_copy(update={"round_number": 1})
    assert is_signed_by(PUBLIC, "ledger entry", second.hash, bytes.fromhex(second.signature))


def test_the_time_is_written_in_utc():
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7)))
    assert new_row(None, OPENED, elsewhere, IDENTITY).time == "2026-11-01T12:30:00.000000+00:00"


def test_the_content_is_canonical(rows):
    for row in rows:
        assert row.content.encode() == canonical_bytes(row.meaning.model_dump(mode="json"))


def test_a_chain_is_whole_from_1_on(rows):
    check_chain(rows, PUBLIC)
    check_chain([], PUBLIC)
    for missing in range(4):
        with pytest.raises(IntegrityError, match=f"is not whole: entry {missing + 1} is missing"):
            check_chain(rows[:missing] + rows[missing + 1 :], PUBLIC)
    with pytest.raises(IntegrityError, match="entry 2 is missing or does not follow"):
        check_chain([rows[0], rows[2], rows[1], *rows[3:]], PUBLIC)


@pytest.mark.parametrize("name", ["time", "kind", "content"])
def test_every_field_is_under_the_hash(rows, name):
    with pytest.raises(IntegrityError, match="was edited: entry 3"):
        check_chain([*rows[:2], replace(rows[2], **{name: "x"}), *rows[3:]], PUBLIC)


def test_another_key_is_found(rows):
    other = new_identity()
    with pytest.raises(IntegrityError, match="was not written by this site: entry 1"):
        check_chain(rows, public_name(other))
    alien = new_row(rows[3], COMMITTED, NOW, other)
    with pytest.raises(IntegrityError, match="was not written by this site: entry 5"):
        check_chain([*rows[:4], alien], PUBLIC)


@pytest.mark.parametrize("spelling", [str.upper, lambda text: text + " ", lambda text: "zz" + text[2:], lambda _: ""])
def test_a_signature_has_one_spelling(rows, spelling):
    changed = replace(rows[2], signature=spelling(rows[2].signature))
    with pytest.raises(IntegrityError, match="entry 3 lacks its signature"):
        check_chain([*rows[:2], changed, *rows[3:]], PUBLIC)
    with pytest.raises(IntegrityError, match="entry 3 that this site did not write"):
        own_meaning(changed, PUBLIC)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("unheard", "{}"),
        ("commit", "{}"),
        ("commit", "no json"),
        ("commit", f'{{"order_digest":"{ORDER}","plan_digest":"{PLAN}","round_number":1,"more":1}}'),
        ("commit", f'{{"order_digest":"{ORDER}","plan_digest":"{PLAN}","round_number":"1"}}'),
        ("budget", '{"dataset":"records","unit":"patient","epsilon":-1.0,"delta":1e-5,"order":5}'),
        ("opened", f'{{"format_version":2,"ledger":"{PLAN}","site":"{PLAN}","host":"{HOST}"}}'),
    ],
)
def test_what_this_version_does_not_write_is_refused(rows, kind, content):
    with pytest.raises(IntegrityError, match="entry 3, which is not one that this version writes"):
        _ = replace(rows[2], kind=kind, content=content).meaning


def test_every_kind_has_a_name_and_comes_back(rows):
    assert sorted(KINDS) == ["budget", "commit", "opened", "recovery", "reserve", "step"]
    entry = Recovered(reason="the disk was replaced", finding="none", plans=(PLAN,))
    assert own_meaning(new_row(rows[-1], entry, NOW, IDENTITY), PUBLIC) == entry
