import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.canonical import canonical_bytes
from common.errors import ConfigError, IntegrityError
from common.identity import new_identity, public_name, sign
from common.signed_plan import SIGNED_PLAN_LIMIT_BYTES, read_signed_plan, sign_plan, write_signed_plan
from tests.plans import make_plan

NOW = datetime(2026, 11, 5, 9, 30, tzinfo=UTC)
END = NOW + timedelta(days=30)
COORDINATOR, STRANGER = new_identity(), new_identity()
FEDERATION = "fe" * 32
PLAN = make_plan(roster={"north": public_name(new_identity()), "south": public_name(new_identity())})
SIGNED = sign_plan(PLAN, FEDERATION, NOW, END, COORDINATOR)


def test_a_plan_comes_back_from_its_bytes():
    read = read_signed_plan(write_signed_plan(SIGNED))
    assert read == SIGNED
    assert (read.plan, read.digest) == (PLAN, PLAN.digest)
    assert (read.federation, read.coordinator) == (FEDERATION, public_name(COORDINATOR))
    assert (read.issued, read.valid_until) == (NOW, END)


def test_labels_in_any_script_come_back():
    plan = make_plan(task={"labels": ("nein", "Übelkeit"), "positive_label": "Übelkeit"})
    signed = sign_plan(plan, FEDERATION, NOW, END, COORDINATOR)
    assert read_signed_plan(write_signed_plan(signed)).plan == plan


@pytest.mark.parametrize(("seconds", "valid"), [(-1, False), (0, True), (30 * 86400, True), (30 * 86400 + 1, False)])
def test_it_is_valid_from_its_first_to_its_last_second(seconds, valid):
    assert SIGNED.is_valid_at(NOW + timedelta(seconds=seconds)) is valid


def forged(changes, identity=COORDINATOR, purpose="signed plan", **after):
    """What a coordinator with this key could write, whether or not it makes sense."""
    content = json.loads(write_signed_plan(SIGNED)) | changes
    del content["signature"]
    signature = sign(identity, purpose, content).hex()
    return canonical_bytes(content | {"signature": signature} | after)


def planned(**changes):
    return SIGNED.plan.model_dump(mode="json") | changes


def test_the_forgers_own_writing_is_right():
    assert read_signed_plan(forged({})) == SIGNED


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (forged({}, identity=STRANGER), "not signed by the coordinator"),
        (forged({}, purpose="invitation"), "not signed by the coordinator"),
        (forged({"coordinator": public_name(STRANGER)}), "not signed by the coordinator"),
        (forged({}, federation="00" * 32), "not signed by the coordinator"),
        (forged({}, valid_until="2036-11-05T09:30:00Z"), "not signed by the coordinator"),
        (forged({}, plan=planned(rounds=200), digest=make_plan(rounds=200).digest), "not signed by the coordinator"),
        (forged({"coordinator": "01" + "00" * 31}, signature="01" + "00" * 63), "not everybody can sign"),
        (forged({"digest": "00" * 32}), "digest that is not its plan's"),
        (forged({"plan": planned(rounds=200)}), "digest that is not its plan's"),
        (forged({"plan": planned(extra=1)}), "`plan`"),
        (forged({"plan": planned(rounds=0)}), "`plan`"),
        (forged({"plan": None}), "`plan`"),
        (forged({"valid_until": "2026-11-05T09:30:00Z"}), "ends before it begins"),
        (forged({"issued": "2026-12-24T00:00:00Z"}), "ends before it begins"),
        (forged({"code": "print()"}), "unknown field"),
        (forged({"format_version": 2}), "`format_version`"),
        (b"", "not JSON"),
        (write_signed_plan(SIGNED)[:-1], "not JSON"),
        (write_signed_plan(SIGNED) + b"\n", "canonical"),
        (b" " * (SIGNED_PLAN_LIMIT_BYTES + 1), "may have"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(data, rule):
    with pytest.raises(IntegrityError, match=rule) as caught:
        read_signed_plan(data)
    assert caught.value.message.startswith("the signed plan ")
    assert caught.value.message.isprintable()


@settings(max_examples=60)
@given(st.data())
def test_no_changed_byte_passes(data):
    body = bytearray(write_signed_plan(SIGNED))
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IntegrityError):
        read_signed_plan(bytes(body))


def test_a_plan_that_ends_before_it_begins_is_not_signed():
    with pytest.raises(ConfigError, match="ends before it begins"):
        sign_plan(PLAN, FEDERATION, END, NOW, COORDINATOR)


def test_the_largest_roster_fits():
    roster = {f"site-{number:03}-{'x' * 55}": public_name(STRANGER) for number in range(512)}
    plan = make_plan(roster=roster, sites=512)
    assert len(write_signed_plan(sign_plan(plan, FEDERATION, NOW, END, COORDINATOR))) < SIGNED_PLAN_LIMIT_BYTES / 8
